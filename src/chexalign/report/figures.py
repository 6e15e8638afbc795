"""Picks from the run's files what each chart shows; says in words what cannot be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from chexalign.report import charts
from chexalign.report.inputs import WARMUP_LOGS, RunFiles, mapping
from chexalign.report.tables import Finding, headline_metrics
from chexalign.report.wording import Cell, cell, metric_name, number, percent

Rows = Sequence[dict[str, Any]]
# panel → lines it may hold: code name in the log → name in the legend
TRAIN_PANELS: dict[str, dict[str, str]] = {
    "Loss": {"loss": "loss", "nll": "NLL of the chosen report"},
    "Margin: reward of chosen minus rejected": {"margin": "margin"},
    "Accuracy: share of pairs ranked right": {"accuracy": "accuracy"},
    "Implicit rewards": {"chosen_reward": "chosen", "rejected_reward": "rejected"},
    "Reward of the samples": {"reward": "reward", "reward_mean": "reward"},
    "KL from the reference model": {"kl": "KL"},
    "Share of groups whose rewards are all zero, or all equal": {"zero_reward_rate": "zero", "no_signal": "equal"},
    "Length of the samples over their references, in words": {"length_ratio": "length"},
    "Repeated 4-grams, and distinct reports": {"repetition": "repeated", "distinct": "distinct"},
    "Validation by rule labels, over the findings that occur": {"val_precision": "precision", "val_recall": "recall"},
}
WARMUP_PANELS: dict[str, dict[str, str]] = {
    "Loss": {"loss": "training", "val_loss": "validation"},
    "Validation AUC": {"val_auc": "AUC"},
}
DECODINGS = {"temperature_1": "Temperature 1", "greedy": "Greedy"}


@dataclass(frozen=True)
class Drawing:
    """A chart with its heading and caption; `svg` None and the caption says why where there is nothing to draw."""

    title: str
    svg: Markup | None
    caption: str


def finding_chart(found: Sequence[Finding]) -> Markup | None:
    """Bars of F1 per finding; None where no finding was measured."""
    rows = [(f"{f.label} ({f.n})" if f.n is not None else f.label, *f.f1) for f in found]
    return charts.finding_bars(rows) if rows else None


def length_charts(run: RunFiles) -> list[Drawing]:
    """One chart of length against score per headline metric."""
    if run.results is None:
        return []
    return [drawing for metric in headline_metrics(run.results) if (drawing := _length_chart(metric, run))]


def _length_chart(metric: str, run: RunFiles) -> Drawing | None:
    results = run.results or {}
    blocks = {"temperature_1": results, "greedy": mapping(mapping(results.get("subsets")).get("greedy"))}
    clouds = [_cloud(metric, decoding, block, run.per_study or []) for decoding, block in blocks.items()]
    clouds = [cloud for cloud in clouds if cloud.means or any(cloud.points.values())]
    if not clouds:
        return None
    caption = f"Large marks: mean with {percent(number(results.get('level')) or 0.9)} interval."
    shown = max((len(p) for cloud in clouds for p in cloud.points.values()), default=0)
    if not shown:
        caption += " Single studies are missing: evaluation/per_study.jsonl has none."
    elif shown > charts.MAX_POINTS:
        caption += f" Small marks: {charts.MAX_POINTS} of {shown} studies, evenly taken."
    else:
        caption += " Small marks: one per study."
    return Drawing(metric_name(metric), charts.length_score(metric, clouds), caption)


def _cloud(metric: str, decoding: str, block: dict[str, Any], rows: Rows) -> charts.Cloud:
    points: dict[str, list[tuple[float, float]]] = {"baseline": [], "aligned": []}
    for row in rows:
        words, value = number(row.get("words")), number(mapping(row.get("scores")).get(metric))
        if row.get("decoding") == decoding and row.get("policy") in points and words is not None and value is not None:
            points[row["policy"]].append((words, value))
    length = mapping(block.get("length"))
    means: dict[str, tuple[Cell, Cell]] = {}
    for name in points:
        words_cell, score_cell = cell(block.get(name), "words"), cell(block.get(name), metric)
        if words_cell.mean is None:
            words_cell = Cell(mean=number(length.get(name)))
        if words_cell.mean is not None and score_cell.mean is not None:
            means[name] = (words_cell, score_cell)
    return charts.Cloud(DECODINGS[decoding], points, means, number(length.get("reference")))


def training_charts(run: RunFiles) -> list[Drawing]:
    """Curves of each warm-up phase that ran, then of the alignment."""
    logs = [(name, f"Warm-up: {WARMUP_LOGS[name]}", rows, WARMUP_PANELS) for name, rows in run.warmup.items()]
    logs.append(("train", "Alignment", run.train_log or [], TRAIN_PANELS))
    return [_training_chart(*log) for log in logs]


def _training_chart(name: str, title: str, rows: Rows, wanted: dict[str, dict[str, str]]) -> Drawing:
    panels = [panel for label, lines in wanted.items() if (panel := _panel(label, lines, rows)).lines]
    if not panels:
        return Drawing(title, None, "No curves: the training log is missing or empty.")
    gaps = sum("loss" in row and number(row["loss"]) is None for row in rows)
    caption = f"{len(rows)} logged steps."
    if gaps:
        caption += f" The loss was not a finite number at {gaps} of them."
    return Drawing(title, charts.curves(name, title, panels), caption)


def _panel(label: str, lines: dict[str, str], rows: Rows) -> charts.Panel:
    found: dict[str, list[tuple[float, float]]] = {}
    for code, text in lines.items():
        read = [(number(row.get("step")), number(row.get(code))) for row in rows]
        points = [(step, value) for step, value in read if step is not None and value is not None]
        if points:
            found.setdefault(text, points)
    return charts.Panel(label, found)
