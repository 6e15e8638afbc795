"""sweep.json: one row per entry of the grid with its validation cells, what was picked, and results on the test split.

An entry of several seeds is the mean over them: by study for judges, whole metrics for corpus F1; then the bootstrap
over studies. `seeds` holds each one's own value.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from chexalign import stats
from chexalign.errors import WorkError
from chexalign.evaluation.answers import SEED
from chexalign.evaluation.blocks import mean_over
from chexalign.jsonl import read_json, read_lines, write_json
from chexalign.run.folder import Run
from chexalign.sweep.curves import curves_of, finding_support, zero_rewards
from chexalign.sweep.grid import ONLINE, Entry
from chexalign.sweep.pooled import pooled_blocks
from chexalign.train.batches import steps_for

Row = dict[str, Any]
FAILED = "failed.json"


def validation_scores(run: Run) -> Row:
    """{"studies", "reference_words", "scores": {judge or words: one value per study}} of one branch."""
    return read_json(run.path("validation.json"))


def reason(run: Run) -> str | None:
    """Why an arm's training failed; None where it did not."""
    return read_json(run.path(FAILED))["reason"] if run.path(FAILED).exists() else None


def trained(run: Run) -> bool:
    """False for an arm whose failure was written down; such an arm has no cells."""
    return reason(run) is None


def entry_row(entry: Entry, branches: Sequence[Run], baseline: Row) -> Row:
    """What sweep.json says about one entry; its cells are of the arms that did not fail."""
    runs = [_run_row(b) for b in branches]
    reasons = [r["reason"] for r in runs if r["reason"]]
    row: Row = {
        "label": entry.label,
        "name": entry.name,
        "algorithm": entry.train.algorithm.type,
        "given": entry.given,
        "settings": entry.train.model_dump(mode="json"),
        "reason": reasons[0] if len(reasons) == len(runs) else None,
        "runs": runs,
        "picked": None,
        "train": _median_cost([r["train"] for r in runs if r["train"]]),
        "validation": {},
        "difference": {},
        "curves": {},
        "zero_rewards": [],
        "test": None,
    }
    if row["reason"] is None:
        good, settings = [b for b in branches if trained(b)], branches[0].recipe.evaluate
        boot, before = (settings.bootstrap, SEED, settings.level), baseline["scores"]
        found = [validation_scores(b)["scores"] for b in good]
        for name in found[0]:
            values = mean_over([scores[name] for scores in found])
            row["validation"][name] = stats.mean_cell(values, *boot)
            row["difference"][name] = stats.paired_difference(before[name], values, *boot)
            if len(branches) > 1:
                row["validation"][name]["seeds"] = [_mean(scores[name]) for scores in found]
        logs, inner = [b.path("train_log.jsonl") for b in good], entry.train.rollout.inner_steps
        row["curves"], row["zero_rewards"] = curves_of(logs, inner), [zero_rewards(log, inner) for log in logs]
    return row


def _run_row(run: Run) -> Row:
    """One training of an entry. `stages` of an online one say which round was kept: 0 is where the stage began."""
    extra = run.manifest["stages"].get("train", {}).get("extra") or {}
    row = {"label": run.dir.name, "seed": run.recipe.training_seed, "reason": reason(run)}
    return {**row, "train": _cost(run), "stages": extra.get("stages", [])}


def _mean(values: stats.Values) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if known else None


def _cost(run: Run) -> Row | None:
    """Seconds of the train stage, and of one epoch by the median optimizer step of the log; of one round, where online.

    The median leaves out the first steps, checkpoints, and the gap where a killed arm resumed.
    """
    if not trained(run):
        return None
    stage, train = run.manifest["stages"]["train"], run.recipe.train
    times = [row["seconds"] for _, row in read_lines(run.path("train_log.jsonl")) if isinstance(row, dict)]
    steps = [after - before for before, after in zip(times, times[1:], strict=False) if after > before]
    step = statistics.median(steps) if steps else None
    per_epoch = None if step is None or train.online else step * steps_for(stage["rows_out"], train.batch_size, 1)
    per_round = None if step is None or not train.online else step * train.rollout.inner_steps
    timed = {"seconds": stage["seconds"], "seconds_per_epoch": per_epoch, "seconds_per_round": per_round}
    return {"steps": len(times), **timed, "relative": None}


def _median_cost(costs: Sequence[Row]) -> Row | None:
    """The median over an entry's arms."""
    if not costs:
        return None
    known = {key: [c[key] for c in costs if c[key] is not None] for key in costs[0]}
    return {key: statistics.median(values) if values else None for key, values in known.items()}


def mark_picked(rows: Sequence[Row], select: str) -> list[str]:
    """Mark the best entry of each algorithm and the best of all by the mean of `select`; their labels, best first.

    Ties go to the earlier row; an entry without a score, or one of whose arms failed, cannot be picked. Raises WorkError
    where there is nothing to pick.
    """
    scored = [r for r in rows if r["validation"].get(select, {}).get("mean") is not None]
    scored = [r for r in scored if not any(arm["reason"] for arm in r["runs"])]
    scored.sort(key=lambda r: -r["validation"][select]["mean"])
    if not scored:
        reasons = [arm["reason"] for row in rows for arm in row["runs"] if arm["reason"]]
        raise WorkError(f"nothing to pick from: {reasons[0] if reasons else f'{select} scored no report'}")
    best: dict[str, Row] = {}
    for row in scored:
        best.setdefault(row["algorithm"], row)
    for i, row in enumerate(best.values()):
        row["picked"] = "algorithm" if i else "winner"
    return [row["label"] for row in best.values()]


def write_results(
    run: Run, select: str, rows: Sequence[Row], baseline: Row, tested: Mapping[str, Sequence[Run]], winner: str
) -> None:
    """Write sweep.json. `tested` are the branches that were evaluated, by the label of their entry."""
    recipe, settings = run.recipe, run.recipe.evaluate
    boot = (settings.bootstrap, SEED, settings.level)
    for row in rows:
        if branches := tested.get(row["label"]):
            row["test"] = pooled_blocks(branches)
    _relate(rows)
    pairs = any(row["algorithm"] not in ONLINE for row in rows)
    write_json(
        run.path("sweep.json"),
        {
            "recipe": recipe.name,
            "select": select,
            "seeds": list(recipe.sweep.seeds),
            "pair_judge": recipe.pairs.judge if pairs else None,
            "level": settings.level,
            "n_bootstrap": settings.bootstrap,
            "headline": list(settings.headline),
            "judges": list(settings.judges),
            "n_pairs": run.manifest["stages"]["pairs"]["rows_out"] if pairs else None,
            "n_validation": len(baseline["studies"]),
            "samples": recipe.sweep.samples,
            "reference_words": baseline["reference_words"],
            "baseline": {name: stats.mean_cell(values, *boot) for name, values in baseline["scores"].items()},
            "winner": winner,
            "finding_support": finding_support(run),
            "entries": list(rows),
        },
    )


def _relate(rows: Sequence[Row]) -> None:
    """Time of an epoch relative to DPO's (median over its entries); None where no DPO entry was timed."""
    timed = [row for row in rows if row["train"] and row["train"]["seconds_per_epoch"]]
    dpo = [row["train"]["seconds_per_epoch"] for row in timed if row["algorithm"] == "dpo"]
    for row in timed if dpo else ():
        row["train"]["relative"] = row["train"]["seconds_per_epoch"] / statistics.median(dpo)
