"""sweep.json: one row per entry of the grid with its validation cells, what was picked, and the picked ones' test results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from chexalign import stats
from chexalign.errors import WorkError
from chexalign.jsonl import read_json, read_lines, write_json
from chexalign.results import SEED
from chexalign.run import Run
from chexalign.sweep_grid import Entry
from chexalign.train.loop import steps_for

Row = dict[str, Any]


def validation_scores(run: Run) -> dict[str, Any]:
    """{"studies", "reference_words", "scores": {judge or words: one value per study}} of one branch."""
    return read_json(run.path("validation.json"))


def entry_row(run: Run, entry: Entry, baseline: dict[str, Any]) -> Row:
    """What sweep.json says about one entry; `reason` tells why it failed, None where it did not."""
    failed, settings = run.path("failed.json"), run.recipe.evaluate
    row: Row = {
        "label": entry.label,
        "algorithm": entry.train.algorithm.type,
        "given": entry.given,
        "settings": entry.train.model_dump(mode="json"),
        "reason": read_json(failed)["reason"] if failed.exists() else None,
        "picked": None,
        "train": None,
        "validation": {},
        "difference": {},
        "test": None,
    }
    if row["reason"] is None:
        boot, scores = (settings.bootstrap, SEED, settings.level), validation_scores(run)["scores"]
        row["validation"] = {name: stats.mean_cell(values, *boot) for name, values in scores.items()}
        before = baseline["scores"]
        row["difference"] = {n: stats.paired_difference(before[n], v, *boot) for n, v in scores.items()}
        row["train"] = _cost(run)
    return row


def _cost(run: Run) -> Row:
    """Seconds of the train stage, and of one epoch by the median optimizer step of the log.

    The median leaves out the first steps, checkpoints, and the gap where a killed entry resumed.
    """
    stage, batch_size = run.manifest["stages"]["train"], run.recipe.train.batch_size
    times = [row["seconds"] for _, row in read_lines(run.path("train_log.jsonl")) if isinstance(row, dict)]
    steps = [after - before for before, after in zip(times, times[1:], strict=False) if after > before]
    per_epoch = statistics.median(steps) * steps_for(stage["rows_out"], batch_size, 1) if steps else None
    return {"steps": len(times), "seconds": stage["seconds"], "seconds_per_epoch": per_epoch, "relative": None}


def mark_picked(rows: Sequence[Row], select: str) -> list[str]:
    """Mark the best entry of each algorithm and the best of all by the mean of `select`; their labels, best first.

    Ties go to the earlier row; an entry without a score cannot be picked. Raises WorkError where there is nothing to pick.
    """
    scored = [r for r in rows if r["validation"].get(select, {}).get("mean") is not None]
    scored.sort(key=lambda r: -r["validation"][select]["mean"])
    if not scored:
        reasons = [row["reason"] for row in rows if row["reason"]]
        raise WorkError(f"nothing to pick from: {reasons[0] if reasons else f'{select} scored no report'}")
    best: dict[str, Row] = {}
    for row in scored:
        best.setdefault(row["algorithm"], row)
    for i, row in enumerate(best.values()):
        row["picked"] = "algorithm" if i else "winner"
    return [row["label"] for row in best.values()]


def write_results(
    run: Run, select: str, rows: Sequence[Row], baseline: dict[str, Any], picked: Mapping[str, Run]
) -> None:
    """Write sweep.json. `picked` are the evaluated branches, the winner first."""
    settings = run.recipe.evaluate
    boot = (settings.bootstrap, SEED, settings.level)
    for row in rows:
        if row["label"] in picked:
            row["test"] = _test(picked[row["label"]])
    _relate(rows)
    write_json(
        run.path("sweep.json"),
        {
            "recipe": run.recipe.name,
            "select": select,
            "pair_judge": run.recipe.pairs.judge,
            "level": settings.level,
            "n_bootstrap": settings.bootstrap,
            "headline": list(settings.headline),
            "n_pairs": run.manifest["stages"]["pairs"]["rows_out"],
            "n_validation": len(baseline["studies"]),
            "samples": run.recipe.sweep.samples,
            "reference_words": baseline["reference_words"],
            "baseline": {name: stats.mean_cell(values, *boot) for name, values in baseline["scores"].items()},
            "winner": next(iter(picked)),
            "entries": list(rows),
        },
    )


def _test(run: Run) -> Row:
    """The main blocks of an entry's results.json: all test studies at temperature 1, and greedy where it was decoded."""
    results = read_json(run.path("results.json"))
    wanted = ("baseline", "aligned", "difference", "length", "n_studies", "decoding")
    blocks = {"temperature_1": results, "greedy": results["subsets"].get("greedy")}
    return {name: {k: block[k] for k in wanted} for name, block in blocks.items() if block}


def _relate(rows: Sequence[Row]) -> None:
    """Time of an epoch relative to DPO's (median over its entries); None where no DPO entry was timed."""
    timed = [row for row in rows if row["train"] and row["train"]["seconds_per_epoch"]]
    dpo = [row["train"]["seconds_per_epoch"] for row in timed if row["algorithm"] == "dpo"]
    for row in timed if dpo else ():
        row["train"]["relative"] = row["train"]["seconds_per_epoch"] / statistics.median(dpo)
