"""The page's charts: per-finding bars, length against score, training curves. Okabe–Ito colours, never colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from chexalign.report.draw.svg import draw
from chexalign.report.wording import Cell, metric_name

WIDTH = 4.4  # inches: about 9 point text survives on a phone
BASELINE = "#E69F00"
ALIGNED = "#0072B2"
REFERENCE = "#3c4753"
COLOURS = {"baseline": BASELINE, "aligned": ALIGNED}
SHAPES = {"baseline": "s", "aligned": "o"}
LINES = ((ALIGNED, "-"), ("#D55E00", "--"), ("#009E73", "-."))
MAX_POINTS = 300


@dataclass(frozen=True)
class Cloud:
    """One decoding in the length chart: per policy the studies' (words, score) and the mean of each."""

    title: str
    points: dict[str, list[tuple[float, float]]]
    means: dict[str, tuple[Cell, Cell]]
    reference: float | None


@dataclass(frozen=True)
class Panel:
    """One panel of training curves: named lines of (step, value)."""

    label: str
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    alarms: list[float] = field(default_factory=list)  # steps at which one of them was out of bounds


def finding_bars(rows: Sequence[tuple[str, Cell, Cell]]) -> Markup:
    """F1 per finding, baseline above aligned, with intervals. `rows` are (label, baseline, aligned)."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for i, (_, before, after) in enumerate(rows):
            _bar(axes, i - 0.2, before, "baseline", "////", label="baseline" if i == 0 else "")
            _bar(axes, i + 0.2, after, "aligned", "", label="aligned" if i == 0 else "")
        axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("F1")
        figure.legend(loc="outside upper center", ncols=2)

    names = ", ".join(label for label, _, _ in rows)
    description = f"Bars of F1 with intervals, baseline and aligned, for {names}. The table below has the numbers."
    return draw("findings", description, WIDTH, 0.9 + 0.44 * len(rows), paint)


def _bar(axes: Axes, y: float, value: Cell, name: str, hatch: str, label: str) -> None:
    face = COLOURS[name] if not hatch else "#fdf3dc"
    axes.barh(y, value.mean or 0, 0.36, color=face, edgecolor=COLOURS[name], hatch=hatch, label=label, linewidth=0.8)
    if value.mean is None:
        axes.text(0.01, y, "not measured", va="center", fontsize=9)
    elif value.low is not None and value.high is not None:
        axes.hlines(y, value.low, value.high, color="#1d2733", linewidth=1.2)
        axes.vlines([value.low, value.high], y - 0.09, y + 0.09, color="#1d2733", linewidth=1.2)


def length_score(metric: str, clouds: Sequence[Cloud]) -> Markup:
    """Length against score: a light point per study, the mean of each policy with intervals, the reference length."""

    def paint(figure: Figure) -> None:
        panels = figure.subplots(len(clouds), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, cloud in zip(panels, clouds, strict=True):
            _cloud(axes, cloud)
            axes.set_ylabel(metric_name(metric))
            axes.set_title(cloud.title, loc="left")
        panels[-1].set_xlabel("words in the report")
        panels[-1].set_xlim(left=0)
        handles, labels = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper center", ncols=3, handletextpad=0.4, columnspacing=1.2)

    titles = " and ".join(cloud.title for cloud in clouds)
    description = f"Report length in words against {metric_name(metric)}, baseline and aligned, for {titles}."
    return draw(f"length-{_slug(metric)}", description, WIDTH, 0.7 + 2.4 * len(clouds), paint)


def _cloud(axes: Axes, cloud: Cloud) -> None:
    for name in ("baseline", "aligned"):
        if points := thin(cloud.points.get(name, [])):
            style: dict[str, Any] = {"s": 10, "alpha": 0.28, "linewidths": 0, "marker": SHAPES[name]}
            axes.scatter(*zip(*points, strict=True), color=COLOURS[name], **style)
    for name in ("baseline", "aligned"):
        if name in cloud.means:
            _mean(axes, name, *cloud.means[name])
    if cloud.reference is not None:
        axes.axvline(cloud.reference, color=REFERENCE, linestyle="--", linewidth=1.2, label="reference")


def _mean(axes: Axes, name: str, words: Cell, score: Cell) -> None:
    if words.mean is None or score.mean is None:
        return
    for low, high, lines, at in (
        (words.low, words.high, axes.hlines, score.mean),
        (score.low, score.high, axes.vlines, words.mean),
    ):
        if low is not None and high is not None:
            lines(at, low, high, color="#1d2733", linewidth=1.6, zorder=4)
    # the circle fits inside the square, so that equal means stay visible
    style: dict[str, Any] = {
        "s": {"baseline": 90, "aligned": 42}[name],
        "edgecolors": "#1d2733",
        "linewidths": 1.1,
        "zorder": 5,
        "marker": SHAPES[name],
    }
    axes.scatter([words.mean], [score.mean], color=COLOURS[name], label=name, **style)


def curves(name: str, title: str, panels: Sequence[Panel], marks: Sequence[float] = ()) -> Markup:
    """Training curves in panels under each other over one axis of steps; `marks` are steps with a dotted line."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for panel, one in zip(panels, axes, strict=True):
            for (line, points), (colour, style) in zip(panel.lines.items(), LINES, strict=False):
                marker = "o" if len(points) < 12 else ""
                one.plot(*zip(*average(points), strict=True), style, color=colour, label=line, marker=marker, ms=3.5)
            one.set_title(panel.label, loc="left")
            one.margins(x=0.02)
            if panel.alarms:
                at = one.get_xaxis_transform()
                one.plot(
                    panel.alarms, [0.03] * len(panel.alarms), "x", color="#B00020", ms=4, transform=at, label="alarm"
                )
            for step in marks:
                one.axvline(step, color="#3c4753", linestyle=":", linewidth=1)
            one.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            if len(panel.lines) > 1 or panel.alarms:
                one.legend(
                    loc="lower right",
                    bbox_to_anchor=(1, 0.97),
                    ncols=2,
                    handlelength=2,
                    borderaxespad=0,
                    columnspacing=1,
                )
        axes[-1].set_xlabel("step")
        axes[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))

    shown = ", ".join(panel.label for panel in panels)
    description = f"{title} over training steps: {shown}."
    return draw(f"curves-{_slug(name)}", description, WIDTH, 0.5 + 1.35 * len(panels), paint)


def thin(points: Sequence[tuple[float, float]], limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `limit` of the points, evenly taken."""
    return [points[i * len(points) // limit] for i in range(limit)] if len(points) > limit else list(points)


def average(points: Sequence[tuple[float, float]], limit: int = 200) -> list[tuple[float, float]]:
    """At most `limit` points, each the mean of neighbouring ones."""
    if len(points) <= limit:
        return list(points)
    edges = [i * len(points) // limit for i in range(limit + 1)]
    groups = [points[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _slug(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text)
