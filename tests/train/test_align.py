"""Stored references are checked over the whole set of pairs, and computed ones belong to their pairs."""

import json
import shutil

import pytest
from tests.driver import OVERRIDES

from chexalign.errors import WorkError
from chexalign.jsonl import read_json, read_records, write_records
from chexalign.recipe_file import load_recipe
from chexalign.records import Pair
from chexalign.run import Run
from chexalign.train.align import align


@pytest.fixture
def run(tiny_run, tmp_path) -> Run:
    """The finished tiny run, back at the moment before training."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns("policy", "evaluation", "train_log.jsonl"))
    return Run(load_recipe("tiny", [f"run_dir={folder}", *OVERRIDES]), folder, {"stages": {}})


def change(run: Run, edit) -> None:
    pairs = read_records(run.path("pairs.jsonl"), Pair)
    write_records(run.path("pairs.jsonl"), [Pair.from_dict({**p.to_dict(), **edit(i)}) for i, p in enumerate(pairs)])


def test_a_wrong_reference_outside_the_first_batch_is_found(run):
    change(run, lambda i: {"ref_chosen_logp": -500.0} if i == 17 else {})
    with pytest.raises(WorkError, match="step-0 margins are not zero"):
        align(run)
    assert not run.path("policy").exists()


def test_pairs_without_references_get_computed_ones(run):
    pairs = read_records(run.path("pairs.jsonl"), Pair)
    change(run, lambda i: {"ref_chosen_logp": None} if i == 0 else {})
    align(run)
    stored = read_json(run.path("reference_logps.json"))["logps"]
    assert stored == [pytest.approx([p.ref_chosen_logp, p.ref_rejected_logp], abs=1e-3) for p in pairs]
    change(run, lambda i: {"chosen_tokens": [5, 6, 2], "ref_chosen_logp": None} if i == 0 else {})
    align(run)
    assert read_json(run.path("reference_logps.json"))["logps"][0][0] != stored[0][0]


@pytest.mark.parametrize("algorithm", ["sft", "dpo", "lc_dpo", "ipo", "orpo"])
def test_every_algorithm_of_the_table_trains(run, algorithm):
    settings = [f"run_dir={run.dir}", *OVERRIDES, f"train.algorithm={{type: {algorithm}}}", "train.epochs=3"]
    align(Run(load_recipe("tiny", settings), run.dir, {"stages": {}}))
    rows = [json.loads(line) for line in run.path("train_log.jsonl").read_text().splitlines()]
    per_epoch = [[r["loss"] for r in rows if r["epoch"] == e] for e in (0, 2)]
    assert sum(per_epoch[1]) / len(per_epoch[1]) < sum(per_epoch[0]) / len(per_epoch[0])
    assert run.path("policy/model.safetensors").is_file()
