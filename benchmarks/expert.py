"""What the warm-up's contrastive expert learns in a few minutes: python benchmarks/expert.py --steps 400 --n 3000 --seed 0

Phantom studies at 96 pixels, 79 % of the patients for training; retrieval and wrong-version contrast on the others, and how
far the judge `visual` with this expert orders other reports for an image as `finding_f1` does, which sees the reference.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from chexalign.data.phantom import phantom
from chexalign.judges import load
from chexalign.recipe.warmup import ExpertPhase
from chexalign.records import Study
from chexalign.train.warmup.expert import ExpertSettings, train_expert
from chexalign.train.warmup.expert_measure import measure_expert

IMAGES, REPORTS = 60, 80  # held-out images, and other held-out reports to order for each


def split_of(patient: str) -> str:
    place = zlib.crc32(patient.encode()) % 100
    return "test" if place < 15 else "val" if place < 22 else "train"


def agreement(expert: Path, root: Path, studies: list[Study]) -> dict[str, Any]:
    """Mean over images of Spearman's correlation between a judge and finding_f1, over the same other reports."""
    judges = {"visual": load("visual", model=str(expert), images=root), "rouge_l": load("rouge_l")}
    truth = load("finding_f1")
    found: dict[str, list[float]] = {name: [] for name in judges}
    reports = [s.findings for s in studies[:REPORTS]]
    for study in studies[REPORTS : REPORTS + IMAGES]:
        given = (reports, [study.findings] * len(reports), [study] * len(reports))
        wanted = [a.score for a in truth.score(*given)]
        if len(set(wanted)) > 1:
            for name, judge in judges.items():
                found[name].append(float(spearmanr([a.score for a in judge.score(*given)], wanted)[0]))
    return {
        name: {"spearman_with_finding_f1": round(float(np.mean(x)), 3), "n": len(x)} for name, x in found.items() if x
    }


def main() -> None:
    options = argparse.ArgumentParser()
    for name, default in (("--steps", 400), ("--n", 3000), ("--seed", 0), ("--size", 96), ("--threads", 1)):
        options.add_argument(name, type=int, default=default)
    given = options.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        root, work = Path(folder) / "data", Path(folder) / "run"
        work.mkdir()
        studies = list(phantom(0, given.n, given.size, root, split_of))
        start = time.monotonic()
        train = [s for s in studies if s.split == "train"]
        train_expert(
            train,
            root,
            work / "expert",
            work,
            ExpertSettings(ExpertPhase(steps=given.steps), given.size, 16, seed=given.seed),
        )
        seconds = round(time.monotonic() - start, 1)
        measured = measure_expert(work / "expert", [s for s in studies if s.split != "train"], root, given.seed)
        measured |= agreement(work / "expert", root, [s for s in studies if s.split == "test"])
        print(json.dumps({"steps": given.steps, "trained_on": len(train), "seconds": seconds, **measured}))


if __name__ == "__main__":
    main()
