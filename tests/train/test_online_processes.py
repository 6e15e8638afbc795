"""GRPO by two processes over gloo: rollouts are shared out, the weights are one process's, also after kill -9 of all."""

import time

import pytest
from tests.driver import OVERRIDES
from tests.train.test_distributed import kill_all, launch, weights
from tests.train.test_online_training import ONLINE, further_is_better, prepared, rows_of

from chexalign.recipe.files import load_recipe
from chexalign.run.folder import Run
from chexalign.stages.train import align

# 5 studies a round for 2 processes, groups of 3 samples, micro-batches of 3 groups: every share is uneven.
SETTINGS = [
    *OVERRIDES, *ONLINE, "train.algorithm={type: grpo, kl: 0.05}", "train.reward=0.5*rouge_l + 0.5*bleu4",
    "train.watch.judge=meteor_nosyn", "train.batch_size=5", "train.micro_batch_size=3", "train.rollout.batch_size=2",
]  # fmt: skip
# Trains the folder; with `hang` it stops answering at its seventh log row.
PROGRAM = """
import sys, time
import torch
torch.set_num_threads(1)
sys.path.insert(0, {root!r})
from pathlib import Path
from chexalign import processes
from chexalign.recipe.files import load_recipe
from chexalign.run.folder import Run
from chexalign.train import loop
from chexalign.stages import train_online as online
from chexalign.stages.train import align
from tests.train.test_online_training import further_is_better

def hanging(self, row, write=loop.Trainer._append_log):
    write(self, row)
    if row["step"] == 6:
        time.sleep(600)

online.validator = further_is_better
if sys.argv[2] == "hang":
    loop.Trainer._append_log = hanging
folder = Path(sys.argv[1])
with processes.joined():
    align(Run(load_recipe("tiny", (folder / "settings.txt").read_text().splitlines()), folder, {{"stages": {{}}}}))
"""


@pytest.mark.slow
def test_two_processes_end_in_the_weights_of_one_also_after_kill_9(tiny_run, tmp_path, monkeypatch, pytestconfig):
    one, two = (prepared(tiny_run, tmp_path / n) for n in ("one", "two"))
    settings = {folder: [f"run_dir={folder}", *SETTINGS] for folder in (one, two)}
    (two / "settings.txt").write_text("\n".join(settings[two]))
    program, log = tmp_path / "program.py", two / "train_log.jsonl"
    program.write_text(PROGRAM.format(root=str(pytestconfig.rootpath)))
    launcher = launch(program, two, "hang")
    monkeypatch.setattr("chexalign.stages.train_online.validator", further_is_better)
    align(Run(load_recipe("tiny", settings[one]), one, {"stages": {}}))
    end = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") == 7):
        assert launcher.poll() is None and time.monotonic() < end, launcher.communicate()[0][-3000:]
        time.sleep(0.05)
    kill_all(launcher)
    assert (two / "train").exists() and not (two / "policy").exists()
    again = launch(program, two, "go")
    told = again.communicate(timeout=120)[0]
    assert again.returncode == 0, told[-3000:]
    single, double = rows_of(one), rows_of(two)
    assert [r["step"] for r in single] == [r["step"] for r in double] == list(range(12))
    assert all(a.keys() == b.keys() for a, b in zip(single, double, strict=True))
    for name in {k for r in single for k in r}:
        values = [[r[name] for r in log if name in r] for log in (double, single)]
        assert values[0] == pytest.approx(values[1], abs=1e-5, rel=1e-5), name
    ours, theirs = weights(one), weights(two)
    assert ours.keys() == theirs.keys()
    assert max(float((ours[n] - theirs[n]).abs().max()) for n in ours) < 1e-5
    assert max(r["kl"] for r in single) > 1e-4  # it did learn
