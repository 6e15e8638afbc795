"""Picks from the run's files what each chart shows; says in words what cannot be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from chexalign.report.draw import charts
from chexalign.report.inputs import WARMUP_LOGS, RunFiles, mapping
from chexalign.report.run.tables import Finding
from chexalign.report.wording import Cell, cell, count, metric_name, number, percent
from chexalign.results import Block, Results

Rows = Sequence[dict[str, Any]]
# panel → lines it may hold: code name in the log → name in the legend
TRAIN_PANELS: dict[str, dict[str, str]] = {
    "Loss": {"loss": "loss", "nll": "NLL of the chosen report"},
    "Margin: reward of chosen minus rejected": {"margin": "margin"},
    "Accuracy: share of pairs ranked right": {"accuracy": "accuracy"},
    "Implicit rewards": {"chosen_reward": "chosen", "rejected_reward": "rejected"},
    "Reward of the samples": {"reward": "reward", "reward_mean": "reward"},
    "KL from the reference model": {"kl": "KL"},
    "Groups whose rewards are": {"zero_reward_rate": "all zero", "no_signal": "all equal"},  # share of them
    "Words over the reference's": {"length_ratio": "words"},
    "4-grams, reports": {"repetition": "repeated", "distinct": "distinct", "truncated": "cut"},
    "Validation by rule labels": {"val_precision": "precision", "val_recall": "recall"},
}
WARMUP_PANELS: dict[str, dict[str, str]] = {
    "Loss": {"loss": "training", "val_loss": "validation"},
    "Validation AUC": {"val_auc": "AUC"},
}
NOT_WATCHED = {
    "val_loss",
    "val_auc",
    "val_abstained",
    "val_precision",
    "val_recall",
}  # the judge's mean is what is left
ALARMS = {"length": "length_ratio"} | {k: k for k in ("repetition", "distinct", "truncated")}  # train.watch → bounded
ALARM_WORDS = {
    "length": "length",
    "repetition": "repeated 4-grams",
    "distinct": "distinct reports",
    "truncated": "samples cut at max_new_tokens",
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
    return [
        drawing
        for metric in run.results.headline
        if (drawing := _length_chart(metric, run.results, run.per_study or []))
    ]


def _length_chart(metric: str, results: Results, per_study: Rows) -> Drawing | None:
    blocks = {"temperature_1": results.overall, "greedy": results.subsets.get("greedy", Block())}
    clouds = [_cloud(metric, decoding, block, per_study) for decoding, block in blocks.items()]
    clouds = [cloud for cloud in clouds if cloud.means or any(cloud.points.values())]
    if not clouds:
        return None
    caption = f"Large marks: mean with {percent(number(results.level) or 0.9)} interval."
    shown = max((len(p) for cloud in clouds for p in cloud.points.values()), default=0)
    if not shown:
        caption += " Single studies are missing: evaluation/per_study.jsonl has none."
    elif shown > charts.MAX_POINTS:
        caption += f" Small marks: {charts.MAX_POINTS} of {shown} studies, evenly taken."
    else:
        caption += " Small marks: one per study."
    return Drawing(metric_name(metric), charts.length_score(metric, clouds), caption)


def _cloud(metric: str, decoding: str, block: Block, rows: Rows) -> charts.Cloud:
    points: dict[str, list[tuple[float, float]]] = {"baseline": [], "aligned": []}
    for row in rows:
        words, value = number(row.get("words")), number(mapping(row.get("scores")).get(metric))
        if row.get("decoding") == decoding and row.get("policy") in points and words is not None and value is not None:
            points[row["policy"]].append((words, value))
    length = block.length or {}
    means: dict[str, tuple[Cell, Cell]] = {}
    for name in points:
        words_cell, score_cell = cell(block.side(name), "words"), cell(block.side(name), metric)
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
    watched = {k for row in rows for k in row if k.startswith("val_") and "/" not in k} - NOT_WATCHED
    wanted = {**wanted, **{f"Validation: {metric_name(k.removeprefix('val_'))}": {k: "mean"} for k in sorted(watched)}}
    panels = [panel for label, lines in wanted.items() if (panel := _panel(label, lines, rows)).lines]
    if not panels:
        return Drawing(title, None, "No curves: the training log is missing or empty.")
    marks = _onsets(rows)
    gaps = sum("loss" in row and number(row["loss"]) is None for row in rows)
    caption = f"{len(rows)} logged steps."
    if gaps:
        caption += f" The loss was not a finite number at {gaps} of them."
    if told := _alarm_words(rows):
        caption += f" Crosses: out of the bounds of train.watch ({told})."
    if marks:
        caption += f" Dotted lines: {'; '.join(f'{text} from step {step:g}' for step, text in marks)}."
    return Drawing(title, charts.curves(name, title, panels, [step for step, _ in marks]), caption)


def _onsets(rows: Rows) -> list[tuple[float, str]]:
    """Where a reward that is given every k rounds is first given, and where a later stage of the training begins."""
    found, stage = [], 1.0
    for key in sorted({k for row in rows for k in row if k.startswith("reward/every(")}):
        first = next((s for row in rows if row.get(key) and (s := number(row.get("step"))) is not None), None)
        if first is not None:
            found.append((first, key.removeprefix("reward/")))
    for row in rows:
        step, now = number(row.get("step")), number(row.get("stage"))
        if step is not None and now is not None and now > stage:
            found.append((step, f"stage {now:g}"))
            stage = now
    return found


def _panel(label: str, lines: dict[str, str], rows: Rows) -> charts.Panel:
    found: dict[str, list[tuple[float, float]]] = {}
    for code, text in lines.items():
        read = [(number(row.get("step")), number(row.get(code))) for row in rows]
        points = [(step, value) for step, value in read if step is not None and value is not None]
        if points:
            found.setdefault(text, points)
    warned = [f"warn_{name}" for name, code in ALARMS.items() if code in lines]
    steps = [number(row.get("step")) for row in rows if any(row.get(name) for name in warned)]
    return charts.Panel(label, found, [step for step in steps if step is not None])


def _alarm_words(rows: Rows) -> str:
    """What left its bounds, at how many steps and from which on: "length at 12 of 60 steps, from step 30"."""
    told = []
    for name, words in ALARM_WORDS.items():
        steps = [number(row.get("step")) for row in rows if row.get(f"warn_{name}")]
        if steps and steps[0] is not None:
            told.append(f"{words} at {len(steps)} of {len(rows)} steps, from step {steps[0]:g}")
    return "; ".join(told)


def collapse_warnings(run: RunFiles) -> list[str]:
    """One line when an online run left the bounds of train.watch, with the round whose weights were saved."""
    told = _alarm_words(run.train_log or [])
    if not told:
        return []
    manifest = mapping(run.manifest)
    done = mapping(mapping(mapping(manifest.get("stages")).get("train")).get("extra")).get("stages")
    kept = [count(mapping(stage).get("best_round")) for stage in done] if isinstance(done, list) else []
    rounds = ", then ".join(
        "those before any update" if k == 0 else f"those after round {k}" for k in kept if k is not None
    )
    watch = mapping(mapping(mapping(manifest.get("recipe")).get("train")).get("watch"))
    why = (
        "the last ones, as train.watch.keep asks" if watch.get("keep") == "last" else "the best on the validation split"
    )
    saved = f" The saved weights are {rounds}, {why}." if rounds else ""
    return [f"Training may have collapsed: {told}.{saved}"]
