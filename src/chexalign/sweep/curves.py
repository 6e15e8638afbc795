"""Curves of a sweep's online entries: what train_log.jsonl says over rounds, the mean over seeds and its range."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chexalign.evaluation.answers import label_set
from chexalign.jsonl import read_lines
from chexalign.labels import LABELS
from chexalign.run.folder import Run
from chexalign.run.task import reference

ROLLOUT = ("reward", "zero_reward_rate", "no_signal", "kl", "length_ratio", "distinct")  # of a round's samples
VALIDATION = "val_"  # after the round's update
BEFORE = "before_"  # what the first row's validation before any update is marked with
SMOOTH = 5  # rounds that a zero-reward rate is the mean of
Curve = dict[str, list[Any]]


def curves_of(logs: Sequence[Path], inner_steps: int) -> dict[str, Curve]:
    """Name → `rounds` (updates made before the value was measured), `mean`, `low` and `high` over the logs, one per seed.

    A round counts where any log has it; `n` says how many. Empty where the training was not online.
    """
    points: dict[str, dict[int, list[float]]] = {}
    for log in logs:
        for name, found in _one(log, inner_steps).items():
            for at, value in found.items():
                points.setdefault(name, {}).setdefault(at, []).append(value)
    return {name: _pooled(found) for name, found in points.items()}


def _one(log: Path, inner_steps: int) -> dict[str, dict[int, float]]:
    """Name → round → value. The first optimizer step of a round says what was sampled, the last one is validated."""
    found: dict[str, dict[int, float]] = {}
    for _, row in read_lines(log):
        if not isinstance(row, dict) or "round" not in row:
            continue
        number = int(row["round"])
        for name, value in row.items():
            if name in ROLLOUT and row["step"] % inner_steps == 0:
                found.setdefault(name, {})[number] = value
            elif name.startswith(VALIDATION) and name != "val_loss":
                found.setdefault(name, {})[number + 1] = value
            elif name.startswith(BEFORE + VALIDATION) and not name.endswith("val_loss"):
                found.setdefault(name.removeprefix(BEFORE), {})[number] = value
    return found


def zero_rewards(log: Path, inner_steps: int) -> dict[str, float | int | None] | None:
    """The zero-reward rate of the first round and of the last SMOOTH, and when it has halved; None where not online.

    The first round is sampled before any update: a seed's settings share it. A mean of more rounds would already hold what
    a fast setting has learnt. `halved` is the number of rounds made when the mean of SMOOTH was first at most half of it.
    """
    rates = list(_one(log, inner_steps).get("zero_reward_rate", {}).values())
    means = [statistics.fmean(rates[i : i + SMOOTH]) for i in range(len(rates) - SMOOTH + 1)]
    if not means:
        return None
    start = rates[0]
    halved = next((i + SMOOTH for i, mean in enumerate(means) if mean <= start / 2), None) if start else None
    return {"start": start, "end": means[-1], "halved": halved}


def _pooled(found: dict[int, list[float]]) -> Curve:
    rounds = sorted(found)
    values = [found[at] for at in rounds]
    return {
        "rounds": rounds,
        "mean": [statistics.fmean(v) for v in values],
        "low": [min(v) for v in values],
        "high": [max(v) for v in values],
        "n": [len(v) for v in values],
    }


def finding_support(run: Run) -> dict[str, int]:
    """How many of the validation studies that online training watches have each finding, by the rules on their references."""
    studies = run.studies("val")[: run.recipe.train.watch.limit]
    stated = [label_set(reference(run.recipe, s)) for s in studies]
    counts = {label: sum(label in labels for labels in stated) for label in LABELS[:-1]}
    return {label: n for label, n in counts.items() if n}
