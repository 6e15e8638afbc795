"""Controls that cannot see the image."""

import pytest

from chexalign.evaluation.answers import Answers, Decoded, Evaluated
from chexalign.evaluation.controls import image_donors, shuffled_control, with_other_images
from chexalign.policies import Prompt
from chexalign.recipe.files import load_recipe
from chexalign.records import Study


def studies(*counts: int) -> list[Study]:
    return [
        Study(f"s{i}", f"p{i}", "test", tuple((f"{i}-{k}.png", "frontal") for k in range(n)), findings="x")
        for i, n in enumerate(counts)
    ]


def test_every_study_gets_images_of_another_of_its_kind(tmp_path):
    rows = studies(1, 2, 1, 2, 1, 1)
    donors = image_donors(rows, 2)
    assert sorted(donors) == list(range(6)) and all(d != i for i, d in enumerate(donors))
    assert all(len(rows[i].images) == len(rows[d].images) for i, d in enumerate(donors))
    prompts = [Prompt(f"text {s.study_id}", tuple(p for p, _ in s.images), tmp_path) for s in rows]
    moved = with_other_images(prompts, donors)
    assert [p.text for p in moved] == [p.text for p in prompts] and moved[0].images == prompts[donors[0]].images


def test_a_study_without_a_partner_is_its_own_donor():
    assert image_donors(studies(1, 1, 2), 2) == [1, 0, 2]


def test_what_of_a_gain_needs_the_right_images_by_hand():
    """Right images: +.5 and +.1; shuffled ones: +.2 and +.2. The third study had to keep its own and is left out."""
    settings = load_recipe("tiny", ["evaluate.judges=[rouge_l]", "evaluate.headline=[rouge_l]"]).evaluate
    scores = {
        ("baseline", "temperature_1"): [0.1, 0.4, 0.0], ("aligned", "temperature_1"): [0.6, 0.5, 1.0],
        ("baseline", "shuffled"): [0.0, 0.1, 0.0], ("aligned", "shuffled"): [0.2, 0.3, 1.0],
    }  # fmt: skip
    answers = {Decoded(*key): Answers(["x"] * 3, {"rouge_l": values}) for key, values in scores.items()}
    control = shuffled_control(Evaluated(studies(1, 1, 2), ["x"] * 3, answers), [1, 0, 2], settings)
    assert control.scores["rouge_l"]["mean"] == pytest.approx(0.25) and control.scores["rouge_l"]["n"] == 2
    assert control.difference["rouge_l"]["mean"] == pytest.approx(((0.6 - 0.2) + (0.5 - 0.3)) / 2)
    gain = control.gain["rouge_l"]
    assert gain["mean"] == pytest.approx(((0.5 - 0.2) + (0.1 - 0.2)) / 2) and gain["abstained"] == 1
