"""Controls that cannot see the image."""

from chexalign.evaluate import _donors, _with_other_images
from chexalign.policies import Prompt
from chexalign.recipe_file import load_recipe
from chexalign.records import Study
from chexalign.run import Run


def studies(*counts: int) -> list[Study]:
    return [
        Study(f"s{i}", f"p{i}", "test", tuple((f"{i}-{k}.png", "frontal") for k in range(n)), findings="x")
        for i, n in enumerate(counts)
    ]


def test_every_study_gets_images_of_another_of_its_kind(tmp_path):
    run = Run(load_recipe("tiny", ["studies.max_images=2"]), tmp_path, {})
    rows = studies(1, 2, 1, 2, 1, 1)
    donors = _donors(run, rows)
    assert sorted(donors) == list(range(6)) and all(d != i for i, d in enumerate(donors))
    assert all(len(rows[i].images) == len(rows[d].images) for i, d in enumerate(donors))
    prompts = [Prompt(f"text {s.study_id}", tuple(p for p, _ in s.images), tmp_path) for s in rows]
    moved = _with_other_images(prompts, donors)
    assert [p.text for p in moved] == [p.text for p in prompts] and moved[0].images == prompts[donors[0]].images


def test_a_study_without_a_partner_is_its_own_donor(tmp_path):
    run = Run(load_recipe("tiny", ["studies.max_images=2"]), tmp_path, {})
    assert _donors(run, studies(1, 1, 2)) == [1, 0, 2]
