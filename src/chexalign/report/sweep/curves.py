"""Curves of a sweep's online settings against rounds: one line per setting, the mean over seeds with its range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from chexalign.report.draw.charts import WIDTH
from chexalign.report.draw.svg import draw
from chexalign.report.inputs import mapping
from chexalign.report.run.figures import Drawing
from chexalign.report.wording import count, metric_name, number, score

# Okabe–Ito with a dash of its own each, so that a line is known without its colour
LINES: tuple[tuple[str, Any], ...] = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#E69F00", (0, (7, 2))),
    ("#56B4E9", (0, (4, 1, 1, 1, 1, 1))),
    ("#3c4753", (0, (1, 1))),
    ("#7a6a00", (0, (8, 2, 2, 2))),
)
SMOOTH = 5  # rounds that a point of the samples' curves is the mean of
RAREST = 4  # findings with a panel of their own
FEWEST = 3  # validation studies that such a finding must have
SAMPLES = {
    "reward": "Reward of the samples",
    "zero_reward_rate": "Share of groups whose rewards are all zero",
    "length_ratio": "Length of the samples over their references",
    "kl": "KL from the baseline, nats per token",
}
Lines = list[tuple[str, dict[str, Any]]]  # a setting's name and its curve


def online_charts(results: dict[str, Any], named: Sequence[tuple[str, dict[str, Any]]]) -> list[Drawing]:
    """Charts of what was sampled, of the validation, and of the rarest findings; none where nothing was trained online.

    `named` holds the name and the entry of every setting.
    """
    online = [(name, mapping(e.get("curves"))) for name, e in named if mapping(e.get("curves"))]
    if not online:
        return []
    judges = dict.fromkeys(k for _, curves in online for k in curves if k.startswith("val_") and "/" not in k)
    validated = {k: _validated(k) for k in judges if k != "val_abstained"}
    rare = _rare(results, online)
    seeds = len(results.get("seeds") or [])
    band = f" Lines: mean of {seeds} seeds; shaded: lowest to highest." if seeds > 1 else ""
    charts = [
        ("samples", "Samples while training", _panels(SAMPLES, online, SMOOTH), f"Means of {SMOOTH} rounds.{band} Settings "
         "with different rewards cannot be compared by reward."),
        ("validation", "Validation", _panels(validated, online), f"One report per study, {_decoding(named)}.{band}"),
        ("rare", "The rarest findings, F1 on validation", rare, f"In brackets: validation studies that have it.{band}"),
    ]  # fmt: skip
    return [Drawing(title, _draw(name, title, panels), caption) for name, title, panels, caption in charts if panels]


def _decoding(named: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """How the online settings wrote their validation reports."""
    watches = [mapping(mapping(e.get("settings")).get("watch")) for _, e in named if mapping(e.get("curves"))]
    heats = sorted({number(w.get("temperature")) or 0.0 for w in watches})
    return " or ".join(f"at temperature {heat:g}" if heat else "greedy" for heat in heats)


def zero_rows(named: Sequence[tuple[str, dict[str, Any]]]) -> list[tuple[str, str, str, str]]:
    """Setting, its zero-reward rate at the start and at the end (per seed), and the rounds it took to halve; at least one
    seed must have begun above zero. Empty where nothing was trained online."""
    rows = []
    for name, entry in named:
        seeds = [mapping(s) for s in entry.get("zero_rewards") or []]
        if any(number(s.get("start")) for s in seeds):
            start, end = (", ".join(score(number(s.get(k)), digits=2) for s in seeds) for k in ("start", "end"))
            halved = ", ".join("never" if (n := count(s.get("halved"))) is None else str(n) for s in seeds)
            rows.append((name, start, end, halved))
    return rows


def _validated(key: str) -> str:
    parts = {"val_precision": "Macro precision", "val_recall": "Macro recall"}
    return parts.get(key) or metric_name(key.removeprefix("val_"))


def _rare(results: dict[str, Any], online: Sequence[tuple[str, dict[str, Any]]]) -> list[tuple[str, Lines]]:
    support = {k: n for k, v in mapping(results.get("finding_support")).items() if (n := count(v)) and n >= FEWEST}
    rarest = sorted(support, key=lambda label: (support[label], label))[:RAREST]
    return _panels({f"val_f1/{label}": f"{label} ({support[label]})" for label in rarest}, online)


def _panels(
    wanted: dict[str, str], online: Sequence[tuple[str, dict[str, Any]]], smooth: int = 1
) -> list[tuple[str, Lines]]:
    panels = []
    for key, title in wanted.items():
        lines = [(name, _points(mapping(curves.get(key)), smooth)) for name, curves in online]
        if any(points["rounds"] for _, points in lines):
            panels.append((title, lines))  # a setting without a curve keeps its place, and so its colour
    return panels


def _points(curve: dict[str, Any], smooth: int) -> dict[str, Any]:
    """The curve's finite points, each the mean of up to `smooth` neighbours that end with it."""
    keys = ("rounds", "mean", "low", "high")
    rows = zip(*(curve.get(k) or [] for k in keys), strict=False)
    known = [row for row in ([number(v) for v in r] for r in rows) if None not in row]
    means = [
        [sum(v) / len(v) for v in zip(*known[max(0, i + 1 - smooth) : i + 1], strict=True)] for i in range(len(known))
    ]
    return {k: [known[i][0] if k == "rounds" else row[j] for i, row in enumerate(means)] for j, k in enumerate(keys)}


def _draw(name: str, title: str, panels: Sequence[tuple[str, Lines]]) -> Markup:
    def paint(figure: Figure) -> None:
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for one, (label, lines) in zip(axes, panels, strict=True):
            for (_, points), look in zip(lines, LINES * len(lines), strict=False):
                _line(one, points, *look)
            one.set_title(label, loc="left")
            one.margins(x=0.02)
            one.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes[-1].set_xlabel("rounds of updates")
        axes[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
        names = [setting for setting, _ in panels[0][1]]
        for setting, (colour, style) in zip(names, LINES * len(names), strict=False):
            axes[0].plot([], [], color=colour, linestyle=style, label=setting)
        figure.legend(loc="outside upper left", ncols=1, handlelength=3.5)

    height = 0.5 + 1.35 * len(panels) + 0.2 * len(panels[0][1])
    shown = ", ".join(label for label, _ in panels)
    return draw(f"online-{name}", f"{title} against rounds, one line per setting: {shown}.", WIDTH, height, paint)


def _line(axes: Axes, points: dict[str, Any], colour: str, style: Any) -> None:
    marker = "o" if len(points["rounds"]) < 12 else ""
    axes.plot(points["rounds"], points["mean"], color=colour, linestyle=style, marker=marker, markersize=3)
    if points["low"] != points["high"]:
        axes.fill_between(points["rounds"], points["low"], points["high"], color=colour, alpha=0.13, linewidth=0)
