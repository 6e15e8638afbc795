"""The table "paper, release, ours" of docs/use/models.md: each row of ours is what the recipe and the preset say."""

from pathlib import Path

import pytest

from chexalign.policies.presets import preset_for
from chexalign.recipe.files import load_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPE = load_recipe(str(ROOT / "recipes/chexalign_chexagent2.yaml"))
KTO = load_recipe(
    str(ROOT / "recipes/chexalign_chexagent2.yaml"),
    ["train.algorithm={type: kto, beta: 0.1}", "train.batch_size=32"],
)
TRAIN, NONE = RECIPE.train, 'Given the indication: "None", write a structured findings section for the CXR.'
HELD = {  # row → (what is written in the last column, does it hold?)
    "samples per study": ("`sample.n` 4", RECIPE.sample.n == 4),
    "temperature of the samples": ("1.0", RECIPE.sample.temperature == 1.0),
    "training studies": ("80000", RECIPE.sample.limit == 80_000),
    "indication": ("[indication]", RECIPE.studies.require == ("indication",)),
    "asked without an indication": ("the same", preset_for(RECIPE.policy.model).findings == NONE),
    "images": ("`studies.max_images` 2", RECIPE.studies.max_images == 2 == preset_for(RECIPE.policy.model).max_images),
    "learning rate": ("1e-6", (TRAIN.lr, TRAIN.schedule, TRAIN.warmup_share) == (1e-6, "cosine", 0.1)),
    "epochs": ("`train.epochs` 1", TRAIN.epochs == 1),
    "batch": ("64 pairs", TRAIN.batch_size == 64),
    "KTO's batch": ("`train.batch_size=32`", 2 * KTO.train.batch_size == TRAIN.batch_size),
    "DPO β": ("0.1", (TRAIN.algorithm.type, TRAIN.algorithm.beta) == ("dpo", 0.1)),
    "frozen": ("[tower, projector]", set(TRAIN.freeze) == {"tower", "projector"} and TRAIN.lora is None),
    "weights": ("bfloat16", RECIPE.policy.dtype == "bfloat16"),
    "test decoding": ("512", RECIPE.evaluate.greedy and RECIPE.sample.max_new_tokens == 512),
    "judge of the pairs": ("`finding_f1_weighted`", RECIPE.pairs.judge == "finding_f1_weighted"),
}


def table() -> dict[str, str]:
    text = (ROOT / "docs/use/models.md").read_text(encoding="utf-8")
    lines = text.partition("| setting | paper | release | ours |\n|---|---|---|---|\n")[2].partition("\n\n")[0]
    cells = ([c.strip() for c in line.strip("| ").split(" | ")] for line in lines.splitlines())
    return {row[0]: row[-1] for row in cells}


def test_every_row_of_the_table_is_held():
    assert list(table()) == list(HELD)


@pytest.mark.parametrize("row", HELD)
def test_ours_is_what_the_table_says(row):
    said, holds = HELD[row]
    assert said in table()[row] and holds
