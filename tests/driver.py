"""Runs the whole road in a process of its own, which can be told to kill itself, hard, at a chosen moment."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

OVERRIDES = [
    "studies.n=60", "warmup.tower.steps=4", "warmup.tower.eval_every=2", "warmup.reports.steps=8",
    "warmup.reports.eval_every=4", "warmup.save_every=2", "sample.batch_size=8", "sample.limit=40",
    "sample.max_new_tokens=12", "pairs.judge=rouge_l", "train.epochs=2", "train.save_every=2", "train.batch_size=8",
    "evaluate.limit=8",
]  # fmt: skip

# Kills its own process at the n-th call of one function, with half a line on the disk.
PROGRAM = """
import os, signal, sys
import torch
torch.set_num_threads(1)
import chexalign.jsonl, chexalign.stages.score, chexalign.train.loop
from chexalign.cli.commands import app
where, at, *arguments = sys.argv[1:]
calls = 0
chexalign.stages.score.BATCH = 16

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


def start(run_dir: Path, where: str = "nowhere", at: int = 0, command: str = "run", more: Sequence[str] = ()) -> int:
    """Run recipe `tiny`, smaller still; returns 0 or the signal's negative number."""
    words = [sys.executable, "-c", PROGRAM, where, str(at), command, "tiny", f"run_dir={run_dir}", *OVERRIDES, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return done.returncode


def back_to_pairs(run: Path, folder: Path) -> Path:
    """A copy of a finished run at `folder` that has come as far as its pairs."""
    shutil.copytree(run, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["stages"]["train"], manifest["stages"]["evaluate"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
