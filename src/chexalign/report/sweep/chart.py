"""Figure 3 of CheXalign: mean length against mean score of every entry of a sweep, one marker per algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chexalign.report.draw.charts import BASELINE, REFERENCE, WIDTH
from chexalign.report.draw.svg import draw
from chexalign.report.wording import Cell, cell, metric_name, number

# algorithm → name, marker, colour (Okabe–Ito), time of an epoch relative to DPO's in CheXalign's Table 1
LOOKS: dict[str, tuple[str, str, str, float | None]] = {
    "dpo": ("DPO", "o", "#0072B2", 1.0),
    "lc_dpo": ("LC-DPO", "^", "#56B4E9", 1.0),
    "ipo": ("IPO", "D", "#009E73", 1.0),
    "kto": ("KTO", "v", "#D55E00", 2.2),
    "orpo": ("ORPO", "X", "#CC79A7", 0.7),
    "sft": ("SFT", "P", "#3c4753", None),
    "grpo": ("GRPO", "<", "#0072B2", None),
    "orapo": ("OraPO", ">", "#D55E00", None),
    "valor": ("VALOR", "p", "#009E73", None),
    "online_dpo": ("on-policy DPO", "h", "#56B4E9", None),
    "online_kto": ("on-policy KTO", "d", "#CC79A7", None),
}


def length_chart(metric: str, results: dict[str, Any], entries: Sequence[dict[str, Any]]) -> Markup:
    """CheXalign's Figure 3: mean words against mean score of every entry, on the validation split."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for entry in entries:
            _point(axes, entry, metric, seen)
        base = _position(results.get("baseline"), metric)
        if base[0].mean is not None and base[1].mean is not None:
            style: dict[str, Any] = {"marker": "s", "color": BASELINE, "edgecolors": "#1d2733", "zorder": 6}
            axes.scatter([base[0].mean], [base[1].mean], s=80, label="baseline", **style)
            axes.axhline(base[1].mean, color=BASELINE, linewidth=0.9, zorder=1)
        reference = number(results.get("reference_words"))
        if reference is not None:
            axes.axvline(reference, color=REFERENCE, linestyle="--", linewidth=1.2, label="reference length")
        axes.set_xlabel("words in the report, mean")
        axes.set_ylabel(f"{metric_name(metric)}, mean")
        axes.margins(0.08)
        figure.legend(loc="outside upper center", ncols=4, handletextpad=0.3, columnspacing=0.9)

    seen: set[str] = set()
    description = f"Mean report length in words against mean {metric_name(metric)} for every entry of the sweep."
    return draw(f"sweep-{metric.replace('_', '-')}", description, WIDTH + 0.6, 4.2, paint)


def _position(cells: Any, metric: str) -> tuple[Cell, Cell]:
    return cell(cells, "words"), cell(cells, metric)


def _point(axes: Axes, entry: dict[str, Any], metric: str, seen: set[str]) -> None:
    words, height = _position(entry.get("validation"), metric)
    if words.mean is None or height.mean is None:
        return
    algorithm = str(entry.get("algorithm"))
    name, marker, colour, _ = LOOKS.get(algorithm, (algorithm, "*", "#6b7480", None))
    if height.low is not None and height.high is not None:
        axes.vlines(words.mean, height.low, height.high, color=colour, linewidth=0.8, alpha=0.5, zorder=2)
    picked = entry.get("picked") is not None
    edge: Any = {"edgecolors": "#1d2733" if picked else "none", "linewidths": 1.3 if picked else 0}
    if name not in seen:  # the legend's mark has no edge
        axes.scatter([], [], s=64, marker=marker, color=colour, label=name)
        seen.add(name)
    axes.scatter([words.mean], [height.mean], s=64, marker=marker, color=colour, zorder=5, **edge)
    if entry.get("picked") == "winner":
        style: Any = {"textcoords": "offset points", "xytext": (7, 6), "fontsize": 9}
        axes.annotate("best", (words.mean, height.mean), **style)
