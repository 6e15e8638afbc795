"""A GRPO step (rollout and update) beside TRL 1.16's GRPOTrainer: one process, alternating steps, the same everything.

    python benchmarks/online.py                 all of it (`make bench`), about eight minutes on two quiet cores
    python benchmarks/online.py one_image …     some cases: their timed steps are added to those in the results
    python benchmarks/online.py equal           both sides on the same samples, every case
    python benchmarks/online.py memory          peak memory alone

Every completion of both sides has exactly 80 tokens.
Writes benchmarks/results/online.json and the tables of docs/evidence/engine.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
sys.path.insert(0, str(Path(__file__).parent))

import torch

from chexalign.jsonl import read_json, write_json
from engine import PAGE, THREADS, _mib, alternate, spread
from engine_parts.more_tables import online_tables, put
from engine_parts.our_online import OurOnline, same_samples
from engine_parts.setting import CASES, rows
from engine_parts.table import machine

GROUP, LENGTH, WARM, STEPS = 8, 80, 1, 2
RESULTS = Path(__file__).parent / "results" / "online.json"


@dataclass(frozen=True)
class Setting:
    """A model and prompt of engine_parts.setting.CASES, and what GRPO is told."""

    case: str
    what: str
    beta: float = 0.04


SETTINGS = {
    "one_image": Setting("one_image", "576-token image"),
    "no_kl": Setting("one_image", "576-token image, beta 0: no reference", beta=0.0),
    "tiny_tower": Setting("tiny_tower", "576-token image, a tower of one 64-wide layer"),
    "short_prompt": Setting("short_prompt", "16-token image"),
}


def given(setting: Setting) -> dict[str, Any]:
    return {"beta": setting.beta, "group": GROUP, "length": LENGTH}


def measure(setting: Setting) -> dict[str, Any]:
    """Seconds of every side's steps, and of their phases."""
    from engine_parts.trl_online import TrlOnline

    total, case = WARM + STEPS, CASES[setting.case]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = rows(case, total, folder)
        sides: dict[str, Any] = {
            "trl": TrlOnline(case, data, folder, total, **given(setting)),
            "stored": OurOnline(case, data, folder, total, **given(setting)),
            "inline": OurOnline(case, data, folder, total, **given(setting), stored=False),
        }
        seconds = alternate({n: side.step for n, side in sides.items()}, WARM, STEPS)
        sides["trl"].close()
        for side in sides.values():
            assert set(side.lengths()) == {LENGTH} and len(side.lengths()) == GROUP, "completions of another length"
        ours = sides["stored"]
        prefix = int(ours.policy.encode([ours.items[0].prompt]).mask.sum())
    parts = {name: phases(sides[name], step) for name, step in seconds.items()}
    parameters = sum(p.numel() for p in ours.policy.model.parameters())
    return {
        "what": setting.what,
        "beta": setting.beta,
        "parameters": parameters,
        "prefix_tokens": prefix,
        "tower_once_per_image": ours.store_seconds / total,
        "seconds": parts,
    }


def phases(side: Any, steps: list[float]) -> dict[str, list[float]]:
    rollouts, rounds = (side.phases[name][WARM:] for name in ("rollout", "round"))
    return {
        "step": steps,
        "rollout": rollouts,
        "reference_and_reward": [a - b for a, b in zip(rounds, rollouts, strict=True)],
        "update": [a - b for a, b in zip(steps, rounds, strict=True)],
    }


def equal(setting: Setting) -> dict[str, float]:
    """How far apart both sides are on TRL's samples of one prompt, before any update."""
    from engine_parts.trl_online import TrlOnline

    case = CASES[setting.case]
    with tempfile.TemporaryDirectory() as name:
        data = rows(case, 1, Path(name))
        theirs = TrlOnline(case, data, Path(name), 1, **given(setting))
        return same_samples(theirs, OurOnline(case, data, Path(name), 1, **given(setting)), GROUP)


def added(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """The steps of an earlier process and of this one, of which the second gives all else."""
    for name, parts in (before or {}).get("seconds", {}).items():
        for part, values in parts.items():
            now["seconds"][name][part] = [*values, *now["seconds"][name][part]]
    return now


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Medians with spread beside the raw seconds, and the ratios of the bar."""
    cells = {n: {part: spread(v) for part, v in parts.items()} for n, parts in found["seconds"].items()}
    trl = cells["trl"]["step"]["median"]
    ratios = {f"trl_over_{n}": trl / cells[n]["step"]["median"] for n in ("stored", "inline")}
    return {**found, "cells": cells, **ratios}


# ---- memory: a process of its own for each side


def memory(name: str, checkpointing: bool) -> dict[str, float]:
    """Peak resident memory after two steps, and how much of it came after the imports, in MiB."""
    setting = SETTINGS["one_image"]
    case, options = CASES[setting.case], given(setting)
    if name == "trl":
        from engine_parts.trl_online import TrlOnline as Side

        options["checkpointing"] = checkpointing
    else:
        Side = OurOnline  # type: ignore[misc, assignment]
    with tempfile.TemporaryDirectory() as folder:
        data = rows(case, 2, Path(folder))
        before = _mib("VmRSS")
        side = Side(case, data, Path(folder), 2, **options)
        for _ in range(2):
            side.step()
        peak = _mib("VmHWM")
        side.close()
    return {"peak_mib": peak, "over_start_mib": peak - before}


def memories() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, arguments in (("ours", ["ours"]), ("trl", ["trl"]), ("trl_checkpointing", ["trl", "checkpointing"])):
        command = [sys.executable, __file__, "--memory", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    torch.set_num_threads(THREADS)
    asked = sys.argv[1:]
    if "--memory" in asked:
        print(json.dumps(memory(asked[1], "checkpointing" in asked)))
        return
    about = {"command": "python benchmarks/online.py", "machine": machine(THREADS), "group": GROUP, "tokens": LENGTH}
    results: dict[str, Any] = {"steps": {}, "equal": {}} if not asked or not RESULTS.exists() else read_json(RESULTS)
    results |= about
    for name, setting in SETTINGS.items():
        if not asked or "equal" in asked:
            results["equal"][name] = equal(setting)
            print(name, results["equal"][name], flush=True)
        if not asked or name in asked:
            results["steps"][name] = summary(added(results["steps"].get(name), measure(setting)))
            print(name, {k: v for k, v in results["steps"][name].items() if k != "seconds"}, flush=True)
            write_json(RESULTS, results)
    if not asked or "memory" in asked:
        results["memory"] = memories()
        print(results["memory"])
    write_json(RESULTS, results)
    put(PAGE, "online", online_tables(results))


if __name__ == "__main__":
    main()
