"""Controls that cannot see the image."""

import pytest

from chexalign.evaluation.answers import Answers, Decoded, Evaluated
from chexalign.evaluation.blocks import block
from chexalign.evaluation.controls import image_donors, shuffled_control, with_other_images
from chexalign.policies import Prompt
from chexalign.recipe.files import load_recipe
from chexalign.records import Study
from chexalign.report.run.tables import not_read
from chexalign.report.wording import cell


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


def test_what_no_judge_could_read_stands_beside_the_scores_of_each_subset():
    """Baseline: 2 + 1 unread sentences, one refusal; aligned, two seeds: (0 + 3)/2 unread. rouge_l counts no sentences."""
    settings = load_recipe("tiny", ["evaluate.judges=[rouge_l]", "evaluate.headline=[rouge_l]"]).evaluate
    texts, scores = ["x", "y"], {"finding_f1": [0.5, 0.5], "rouge_l": [0.5, 0.5]}
    first = Answers(texts, scores, unread={"finding_f1": [(2, 0), (1, 1)], "rouge_l": [(None, 0), (None, 1)]})
    seeds = [
        Answers(texts, scores, unread={"finding_f1": [(0, 0), (n, 0)], "rouge_l": [(None, 0)] * 2}) for n in (0, 3)
    ]
    found = block(first, seeds, texts, [0, 1], "greedy", settings)
    cells = {(side, j): found.side(side)[j] for side in ("baseline", "aligned") for j in scores}
    assert (cells["baseline", "finding_f1"]["unread"], cells["baseline", "finding_f1"]["unreadable"]) == (3, 1)
    assert (cells["aligned", "finding_f1"]["unread"], cells["aligned", "finding_f1"]["unreadable"]) == (1.5, 0)
    assert "unread" not in cells["baseline", "rouge_l"] and cells["baseline", "rouge_l"]["unreadable"] == 1
    assert block(first, seeds, texts, [0], "greedy", settings).baseline["finding_f1"]["unread"] == 2
    assert not_read(*(cell(found.side(side), "finding_f1") for side in ("baseline", "aligned"))) == (
        "3 / 1.5 sentences; 1 / 0 reports"
    )
