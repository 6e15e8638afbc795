"""Every algorithm trains, and stored references are checked over the whole set of pairs."""

import json

import pytest
from tests.driver import OVERRIDES

from chexalign.errors import WorkError
from chexalign.jsonl import read_records, write_records
from chexalign.recipe.files import load_recipe
from chexalign.records import Pair
from chexalign.run.folder import Run
from chexalign.stages.train import align
from chexalign.train.preference.algorithms import ALGORITHMS


def change(run: Run, edit) -> None:
    pairs = read_records(run.path("pairs.jsonl"), Pair)
    write_records(run.path("pairs.jsonl"), [Pair.from_dict({**p.to_dict(), **edit(i)}) for i, p in enumerate(pairs)])


def test_a_wrong_reference_outside_the_first_batch_is_found(run):
    change(run, lambda i: {"ref_chosen_logp": -500.0} if i == 17 else {})
    with pytest.raises(WorkError, match="step-0 margins are not zero"):
        align(run)
    assert not run.path("policy").exists()


def test_a_file_without_pairs_is_one_clear_line(run):
    run.path("pairs.jsonl").write_text("")
    with pytest.raises(WorkError, match="pairs.jsonl holds no pair"):
        align(run)


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_every_algorithm_of_the_table_trains(run, algorithm):
    settings = [f"run_dir={run.dir}", *OVERRIDES, f"train.algorithm={{type: {algorithm}}}", "train.epochs=3"]
    align(Run(load_recipe("tiny", settings), run.dir, {"stages": {}}))
    rows = [json.loads(line) for line in run.path("train_log.jsonl").read_text().splitlines()]
    per_epoch = [[r["loss"] for r in rows if r["epoch"] == e] for e in (0, 2)]
    assert sum(per_epoch[1]) / len(per_epoch[1]) < sum(per_epoch[0]) / len(per_epoch[0])
    assert run.path("policy/model.safetensors").is_file()
