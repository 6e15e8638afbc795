"""kill -9 in the middle of sample, score and train, then the same command: the outputs equal an uninterrupted run's."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

OVERRIDES = [
    "studies.n=60", "warmup.tower.steps=4", "warmup.tower.eval_every=2", "warmup.reports.steps=8",
    "warmup.reports.eval_every=4", "warmup.save_every=2", "sample.batch_size=8", "sample.limit=40",
    "sample.max_new_tokens=12", "pairs.judge=rouge_l", "train.epochs=2", "train.save_every=2", "train.batch_size=8",
    "evaluate.limit=4", "evaluate.shuffled_images=false",
]  # fmt: skip

# Runs the pipeline and kills its own process, hard, at the n-th call of one function (after half a line is on the disk).
DRIVER = """
import os, signal, sys
import torch
torch.set_num_threads(1)
import chexalign.jsonl, chexalign.score, chexalign.train.loop
from chexalign.cli import app
where, at, *arguments = sys.argv[1:]
calls = 0
chexalign.score.BATCH = 16

def dying(function, path_of, wanted):
    def wrapped(self, *a, **k):
        global calls
        result = function(self, *a, **k)
        if wanted in str(path_of(self)):
            calls += 1
            if calls == int(at):
                with open(path_of(self), "a") as handle:
                    handle.write('{"study_id": "torn')
                os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapped

Ledger, Trainer = chexalign.jsonl.Ledger, chexalign.train.loop.Trainer
Ledger.append = dying(Ledger.append, lambda l: l.part, where)
Trainer._append_log = dying(Trainer._append_log, lambda t: t.log, where)
app(arguments)
"""


def start(run_dir: Path, where: str = "nowhere", at: int = 0) -> int:
    command = [sys.executable, "-c", DRIVER, where, str(at), "run", "tiny", f"run_dir={run_dir}", *OVERRIDES]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return done.returncode


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    whole, killed = (tmp_path_factory.mktemp(n) / "run" for n in ("whole", "killed"))
    assert start(whole) == 0
    for where, at in (
        ("report_log", 5),
        ("completions.jsonl", 2),
        ("completions.jsonl", 2),
        ("verdicts.jsonl", 3),
        ("train_log", 5),
    ):
        assert start(killed, where, at) == -signal.SIGKILL, where
    assert start(killed) == 0
    return whole, killed


def rows(path: Path) -> list[dict]:
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["studies.jsonl", "completions.jsonl", "pairs.jsonl", "pairs_summary.json"])
def test_files_are_the_same_bytes(folders, name):
    assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


@pytest.mark.parametrize(
    "name", ["verdicts.jsonl", "train_log.jsonl", "warmup/report_log.jsonl", "evaluation/aligned.temperature_1.jsonl"]
)
def test_rows_are_the_same_but_for_seconds(folders, name):
    one, two = (rows(f / name) for f in folders)
    assert one == two and one


@pytest.mark.parametrize("name", ["baseline", "policy"])
def test_weights_are_the_same_bytes(folders, name):
    one, two = ((f / name / "model.safetensors").read_bytes() for f in folders)
    assert one == two


def test_training_changed_the_policy(folders):
    one, two = ((folders[0] / n / "model.safetensors").read_bytes() for n in ("baseline", "policy"))
    assert one != two


def test_no_row_is_lost_or_doubled(folders):
    keys = [(r["study_id"], r["sample_index"]) for r in rows(folders[1] / "completions.jsonl")]
    assert len(keys) == len(set(keys)) == 3 * 40


def test_nothing_temporary_is_left(folders):
    left = [str(p) for p in folders[1].rglob("*") if p.suffix in (".part", ".tmp", ".pt", ".new") or "after_" in p.name]
    assert not left


def test_the_manifest_tells_the_whole_story(folders):
    manifest = json.loads((folders[1] / "manifest.json").read_text())
    assert list(manifest["stages"]) == ["studies", "warmup", "sample", "score", "pairs", "train", "evaluate"]
    for stage in manifest["stages"].values():
        assert stage["finished"] and stage["rows_in"] > 0 and stage["rows_out"] > 0
    assert manifest["recipe"]["sample"]["n"] == 3 and manifest["judges"]["rouge_l"]
    assert {"python", "torch", "transformers"} <= set(manifest["versions"])
