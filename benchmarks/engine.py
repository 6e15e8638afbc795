"""The engine beside TRL 1.16: one process, alternating steps, the same weights, data, batch, dtype and threads.

    python benchmarks/engine.py             all of it (`make bench`), about ten minutes on two quiet cores
    python benchmarks/engine.py one_image   one case, printed, not written

Writes benchmarks/results/engine.json and the tables between the marks of docs/evidence/engine.md.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
sys.path.insert(0, str(Path(__file__).parent))

import torch

from chexalign.jsonl import write_json
from chexalign.recipe import preference as settings
from engine_parts.our_side import OurSteps
from engine_parts.setting import BATCH, CASES, Case, examples, policy, rows

THREADS, WARM, STEPS, COMPARED = 2, 2, 6, 5
RESULTS = Path(__file__).parent / "results" / "engine.json"
PAGE = Path(__file__).parents[1] / "docs" / "evidence" / "engine.md"
ALGORITHMS = {
    "dpo": settings.Dpo(),
    "lc_dpo": settings.LcDpo(),
    "ipo": settings.Ipo(),
    "orpo": settings.Orpo(),
    "kto": settings.Kto(),
}


def spread(values: list[float]) -> dict[str, float]:
    """Median with the smallest and largest, and how many."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def alternate(sides: Mapping[str, Callable[[], float]], warm: int, steps: int) -> dict[str, list[float]]:
    """Seconds of every side's calls, taken in turns; the first `warm` rounds are not kept."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warm + steps):
        for name, step in sides.items():
            took = step()
            if turn >= warm:
                seconds[name].append(took)
        gc.collect()
    return seconds


def timed(call: Callable[[], Any]) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return run


# ---- a DPO step beside TRL's


def steps(case: Case, folder: Path) -> dict[str, Any]:
    from engine_parts.trl_side import TrlSteps

    total = WARM + STEPS
    data = rows(case, total * BATCH, folder)
    sides: dict[str, Any] = {
        "trl": TrlSteps(case, data, folder, total),
        "stored": OurSteps(case, data, folder, total),
        "inline": OurSteps(case, data, folder, total, inline=True),
    }
    seconds = alternate({name: side.step for name, side in sides.items()}, WARM, STEPS)
    trl, stored = sides["trl"], sides["stored"]
    trl.close()
    relative = [
        [abs(a - b) / abs(b) for a, b in zip(s.losses, trl.losses, strict=True)] for s in (stored, sides["inline"])
    ]
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "what": case.what,
        "parameters": sum(p.numel() for p in stored.policy.model.parameters()),
        "prefix_tokens": int(stored.policy.encode([stored.items[0].prompt]).mask.sum()),
        "seconds": {name: spread(times) for name, times in seconds.items()},
        "trl_over_stored": middle["trl"] / middle["stored"],
        "trl_over_inline": middle["trl"] / middle["inline"],
        "vision_once_per_step": stored.vision_seconds / total,
        "reference_once_per_step": stored.reference_seconds / total,
        "first_loss": {"trl": trl.losses[0], "ours": stored.losses[0], "relative": relative[0][0]},
        "first_grad_norm": {
            "trl": trl.norms[0],
            "ours": stored.norms[0],
            "relative": abs(stored.norms[0] - trl.norms[0]) / trl.norms[0],
        },
        "losses_of_first_steps": {"trl": trl.losses[:COMPARED], "ours": stored.losses[:COMPARED]},
        "largest_relative_difference": max(max(r[:COMPARED]) for r in relative),
    }


def where_time_goes(case: Case, folder: Path) -> dict[str, Any]:
    """Parts of our step, and its floor: (prefix + completion tokens) × 3 × the decoder's forward time per token."""
    ours = OurSteps(case, rows(case, (WARM + STEPS) * BATCH, folder), folder, WARM + STEPS)
    one, task, trainer = ours.policy, ours.task, ours.trainer
    parts: dict[str, list[float]] = {k: [] for k in ("encode", "forward", "backward", "clip_and_update", "unit")}
    decoder, tokens = one.model.model.language_model, 0
    for turn in range(WARM + STEPS):
        items = ours.items[turn * BATCH : (turn + 1) * BATCH]
        marks = [time.perf_counter()]
        given = task.inputs(items)
        marks.append(time.perf_counter())
        loss = task.loss(task.module(*given), items)[0].mean()
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        trainer.accelerator.clip_grad_norm_(one.model.parameters(), 1.0)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        marks.append(time.perf_counter())
        hidden = torch.randn(BATCH, given[0].ids.shape[1], 512)
        with torch.no_grad():
            decoder(inputs_embeds=hidden, use_cache=False)
        took = (time.perf_counter() - marks[-1]) / hidden.shape[:2].numel()
        tokens = int(given[0].mask.sum() + given[2].sum())
        if turn >= WARM:
            for name, seconds in zip(
                parts, [b - a for a, b in zip(marks, marks[1:], strict=False)] + [took], strict=True
            ):
                parts[name].append(seconds)
    middle = {name: statistics.median(v) for name, v in parts.items()}
    unit = middle.pop("unit")
    whole = sum(middle.values())
    floor = 3 * tokens * unit
    return {**middle, "whole": whole, "tokens": tokens, "floor": floor, "whole_over_floor": whole / floor}


# ---- the algorithms beside each other


def algorithms(case: Case, folder: Path) -> dict[str, Any]:
    """Step times on the same pairs, stored references. KTO also needs its mismatched completions' reference, once."""
    total = WARM + STEPS
    data = rows(case, total * BATCH, folder)
    sides = {name: OurSteps(case, data, folder, total, chosen) for name, chosen in ALGORITHMS.items()}
    seconds = alternate({name: side.step for name, side in sides.items()}, WARM, STEPS)
    dpo = statistics.median(seconds["dpo"])
    once = sides["kto"].mismatched_seconds / total
    return {
        **{name: {**spread(t), "over_dpo": statistics.median(t) / dpo} for name, t in seconds.items()},
        "kto_reference_per_step": once,
        "kto_first_epoch_over_dpo": (statistics.median(seconds["kto"]) + once) / dpo,
    }


# ---- scoring and sampling beside the plain ways


def scoring(case: Case, folder: Path, group: int = 8) -> dict[str, Any]:
    """G completions of one study: one shared pass against G plain forwards of image, prompt and completion."""
    one = policy(case)
    one.reuse_features = False
    items = examples(one, rows(case, group, folder), folder)
    prompt, completions = items[0].prompt, [e.completions[0] for e in items]
    found: dict[str, list[torch.Tensor]] = {}

    def shared() -> None:
        found["shared"] = one.token_logps([prompt], [completions])[0]

    def plain() -> None:
        found["plain"] = []
        for tokens in completions:
            prefix = one.encode([prompt])
            ids = torch.cat([prefix.ids, torch.tensor([tokens])], dim=1)
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **prefix.extra}
            logits = one.model(**given, use_cache=False).logits[0]
            of = logits[prefix.ids.shape[1] - 1 : -1].log_softmax(-1)
            found["plain"].append(of.gather(1, torch.tensor(tokens)[:, None])[:, 0])

    with torch.no_grad():
        seconds = alternate({"plain": timed(plain), "shared": timed(shared)}, 1, STEPS)
    difference = max(float((a - b).abs().max()) for a, b in zip(found["shared"], found["plain"], strict=True))
    ratio = statistics.median(seconds["plain"]) / statistics.median(seconds["shared"])
    cells = {k: spread(v) for k, v in seconds.items()}
    return {"group": group, "seconds": cells, "ratio": ratio, "largest_difference": difference}


def sampling(case: Case, folder: Path, n: int = 4, length: int = 80) -> dict[str, Any]:
    """n reports for each of 4 studies against one `generate` call per report, as the CheXalign release samples."""
    one = policy(case)
    one.reuse_features = False
    one.model.generation_config.eos_token_id = None  # so that all reports are equally long
    one.tokenizer.eos_token = None
    prompts = [e.prompt for e in examples(one, rows(case, 4, folder), folder)]

    def theirs() -> None:
        for prompt in prompts:
            for _ in range(n):
                prefix = one.encode([prompt])
                given = {"input_ids": prefix.ids, "attention_mask": prefix.mask, **prefix.extra}
                made = one.model.generate(**given, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=length)
                assert made.shape[1] == prefix.ids.shape[1] + length

    def ours() -> None:
        for group in one.generate(prompts, n, 1.0, length):
            assert all(len(s.tokens) == length for s in group)

    seconds = alternate({"generate": timed(theirs), "ours": timed(ours)}, 1, 5)
    ratio = statistics.median(seconds["generate"]) / statistics.median(seconds["ours"])
    cells = {k: spread(v) for k, v in seconds.items()}
    return {"n": n, "studies": len(prompts), "tokens": length, "seconds": cells, "ratio": ratio}


# ---- memory: a process of its own for each side


def memory(case: Case, side: str) -> dict[str, float]:
    """Peak resident memory after three steps, and how much of it came after the imports, in MiB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = rows(case, 3 * BATCH, folder)
        if side == "trl":
            from engine_parts.trl_side import TrlSteps as Side
        else:
            Side = OurSteps  # type: ignore[misc, assignment]
        gc.collect()
        before = _mib("VmRSS")
        running = Side(case, data, folder, 3)
        for _ in range(3):
            running.step()
        peak = _mib("VmHWM")
        running.close()
    return {"peak_mib": peak, "over_start_mib": peak - before}


def _mib(field: str) -> float:
    """A line of /proc/self/status. (getrusage's peak would include the parent's, which this process was forked from.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def _memory_of(case: Case) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for side in ("trl", "ours"):
        command = [sys.executable, __file__, "--memory", case.name, side]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[side] = json.loads(done.stdout.splitlines()[-1])
    found["ratio_peak"] = found["ours"]["peak_mib"] / found["trl"]["peak_mib"]
    found["ratio_over_start"] = found["ours"]["over_start_mib"] / found["trl"]["over_start_mib"]
    return found


def measure(names: list[str]) -> dict[str, Any]:
    from engine_parts.table import machine

    about = {"command": "python benchmarks/engine.py", "machine": machine(THREADS)}
    results: dict[str, Any] = {**about, "steps": {}, "memory": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in (CASES[n] for n in names):
            print(f"{case.name}: steps beside TRL's", flush=True)
            results["steps"][case.name] = steps(case, folder)
            if case.name in ("one_image", "two_images"):
                results["memory"][case.name] = _memory_of(case)
                results.setdefault("parts", {})[case.name] = where_time_goes(case, folder)
        first = CASES[names[0]]
        for title, part in (("algorithms", algorithms), ("scoring", scoring), ("sampling", sampling)):
            print(title, flush=True)
            results[title] = part(first, folder)
    return results


def main() -> None:
    torch.set_num_threads(THREADS)
    if "--memory" in sys.argv:
        print(json.dumps(memory(CASES[sys.argv[2]], sys.argv[3])))
        return
    from engine_parts.table import tables, write_page

    chosen = [a for a in sys.argv[1:] if a in CASES]
    results = measure(chosen or list(CASES))
    print(tables(results))
    if not chosen:
        write_json(RESULTS, results)
        write_page(PAGE, results)


if __name__ == "__main__":
    main()
