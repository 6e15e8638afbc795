"""What a policy was shown comes from its prompt: a preset of one image, and a recipe that allows two."""

import json

import pytest
from tests.policies import family_models

from chexalign.evaluation.controls import image_donors
from chexalign.policies.presets import most_images
from chexalign.recipe.files import load_recipe
from chexalign.records import Completion, Study
from chexalign.run.folder import Run
from chexalign.run.policies import open_policy, prompts_for
from chexalign.run.studies import image_root
from chexalign.stages.pairs import Choice, _export_trl, _pair_rows
from chexalign.stages.train import _examples

TWO = Study("s", "p", "train", (("0.png", "frontal"), ("1.png", "lateral")), indication="Cough", findings="Clear.")
ONE = Study("t", "q", "train", (("2.png", "frontal"),), findings="Clear.")


@pytest.fixture
def run(tmp_path, image_folder) -> Run:
    model = family_models.write("gemma3", tmp_path / "medgemma-4b-it")
    settings = ["studies.source=jsonl", f"studies.root={image_folder}", "studies.max_images=2", "warmup=null"]
    (tmp_path / "run").mkdir()
    recipe = load_recipe("tiny", [*settings, f"policy.model={model}", "policy.features_gib=0"])
    return Run(recipe, tmp_path / "run", {})


def test_pairs_hold_the_images_that_were_shown_and_training_can_encode_them(run):
    written = [Completion(s.study_id, 0, "No.", -1.0, 1, "stop", "m", 0) for s in (TWO, ONE)]
    pairs = _pair_rows(run, [TWO, ONE], [Choice(None, (c, 0.5)) for c in written])
    assert [p.images for p in pairs] == [(("0.png", "frontal"),), (("2.png", "frontal"),)]
    policy = open_policy(run, "baseline")
    examples = _examples(run, policy, pairs)
    assert [e.prompt for e in examples] == prompts_for(run, policy, [TWO, ONE])
    assert len(policy.encode([e.prompt for e in examples]).ids) == 2  # as many placeholders as images
    assert examples[0].prompt.root == image_root(run)
    _export_trl(run, [TWO, ONE], pairs)
    for line in run.path("pairs_trl.jsonl").read_text().splitlines():
        row = json.loads(line)
        parts = [part["type"] for turn in row["prompt"] for part in turn["content"]]
        assert parts.count("image") == len(row["images"]) == 1


def test_the_controls_count_the_same_images(run):
    assert most_images(run.recipe) == 1
    assert image_donors([TWO, ONE], most_images(run.recipe)) == [1, 0]  # each is shown one: they can swap
