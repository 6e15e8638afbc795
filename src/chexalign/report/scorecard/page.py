"""The scorecard's page: which judge to trust, from scorecard.json; no scripts, no network, every text escaped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from chexalign.report import wording
from chexalign.report.draw.charts import ALIGNED, REFERENCE
from chexalign.report.draw.svg import draw
from chexalign.report.render import fill, put

WIDTH = 7.0  # inches
Card = dict[str, Any]
Shown = tuple[str, str] | None  # a number and its interval, as text


def write_scorecard_page(card: Card, folder: Path) -> Path:
    """Write `folder/scorecard.html` in one step and return its path."""
    return put(folder / "scorecard.html", render(card))


def render(card: Card) -> str:
    """The page as text; the same card gives the same page."""
    sources = sorted({s for row in card["judges"] for s in row.get("agreement", {}).get("by_source", {})})
    sources = sources if len(sources) > 1 else []
    lengths = [row["length"]["rating"] for row in card["judges"] if row.get("length")]
    return fill(
        "scorecard.html.j2",
        card=card,
        level=wording.percent(card["level"]),
        rows=[_row(row, sources) for row in card["judges"]],
        names=[row["name"] for row in card["judges"]],
        sources=sources,
        chart=_chart(card),
        matrices=[part for part in (_cases(card), _edits(card), _tests(card)) if part["rows"]],
        constants=_constants(card),
        rating_length=_signed(lengths[0]) if lengths else "",
    )


def _signed(value: float | None) -> str:
    return wording.DASH if value is None else f"{value:+.2f}".replace("-", "−")


def _shown(cell: dict[str, Any] | None, write: Callable[[float], str] = "{:.3f}".format) -> Shown:
    if not cell or cell.get("mean") is None:
        return None
    low, high = cell.get("low"), cell.get("high")
    return write(cell["mean"]), f"{write(low)} to {write(high)}" if low is not None and high is not None else ""


def _row(row: dict[str, Any], sources: Sequence[str]) -> dict[str, Any]:
    found, speed = row.get("agreement", {}), row["speed"]
    return {
        "name": row["name"],
        "version": row["version"],
        "rating": _shown(found.get("rating")),
        "behind": _shown(row.get("behind_best")),
        "errors": _shown(found.get("significant_errors")),
        "preference": _shown(found.get("preference"), "{:.2f}".format),
        "sources": {s: _shown(found.get("by_source", {}).get(s), "{:.2f}".format) for s in sources},
        "abstained": str(found.get("abstained", wording.DASH)),
        "reports_abstained": str(row["reports_abstained"]),
        "length": _signed((row.get("length") or {}).get("score")),
        "cold": _rate(speed["cold"]),
        "cached": _rate(speed["cached_references"]),
    }


def _rate(value: float | None) -> str:
    return wording.DASH if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _number(value: float | None) -> str:
    return "abstains" if value is None else f"{value:.2f}".replace("-", "−")


def _cases(card: Card) -> dict[str, Any]:
    columns = [{c["case"]: c for c in row["cases"]} for row in card["judges"]]
    rows = []
    for one in card["judges"][0]["cases"] if card["judges"] else []:
        hint = f"“{_cut(one['reference'])}” → “{_cut(one['report'])}” deserves {one['deserves']}"
        rows.append((one["case"], hint, [(_number(c[one["case"]]["score"]), c[one["case"]]["good"]) for c in columns]))
    note = "The score of one hand-written report against its reference. Little means at most half of full marks."
    return {"id": "attacks", "title": "Hand-written attacks", "first": "Attack", "note": note, "rows": rows}


def _cut(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _edits(card: Card) -> dict[str, Any]:
    columns = [{e["edit"]: e for e in row["edits"]} for row in card["judges"]]
    rows = []
    for one in card["judges"][0]["edits"] if card["judges"] else []:
        hint = f"deserves {one['deserves']}; {one['n']} reports"
        rows.append((one["edit"], hint, [_moved(c[one["edit"]]) for c in columns]))
    for name, what in (("all", "a fixed normal template, all studies"), ("abnormal", "the same, abnormal studies")):
        cells = [_template(row["template"][name], name == "abnormal") for row in card["judges"]]
        n = card["judges"][0]["template"][name]["n"] if card["judges"] else 0
        rows.append((what, f"against the report of another study; {n} studies", cells))
    note = (
        "Mean score before → after an edit. The edited text is the reference itself, or the report of another study where "
        "the edit must not raise the score."
    )
    title = f"Attacks on {card['n_reports']} reports"
    return {"id": "reports", "title": title, "first": "Edit", "note": note, "rows": rows}


def _constants(card: Card) -> list[dict[str, Any]]:
    """One row per judge and set of studies: the best constant text, what it earns, and another patient's report beside it."""
    return [
        {
            "name": row["name"],
            "studies": f"{part} ({cell['n']})",
            "text": cell["text"] or wording.DASH,
            "score": wording.DASH if cell["score"] is None else f"{cell['score']:.3f}",
            "other": wording.DASH if cell["other"] is None else f"{cell['other']:.3f}",
            "pays": None not in (cell["score"], cell["other"]) and cell["score"] >= cell["other"],
        }
        for row in card["judges"]
        for part, cell in (row.get("constant") or {}).items()
    ]


def _moved(edit: dict[str, Any]) -> tuple[str, bool | None]:
    if edit["before"] is None:
        return wording.DASH, None
    return f"{_number(edit['before'])} → {_number(edit['after'])}", edit["good"]


def _template(cell: dict[str, Any], judged: bool) -> tuple[str, bool | None]:
    fixed, other = cell["template"], cell["other"]
    if fixed is None or other is None:
        return wording.DASH, None
    return f"{_number(other)} → {_number(fixed)}", fixed < other if judged else None


def _tests(card: Card) -> dict[str, Any]:
    columns = [{t["id"]: t for t in row.get("ranking_tests", [])} for row in card["judges"]]
    rows = []
    for one in card["judges"][0].get("ranking_tests", []) if card["judges"] else []:
        cells = []
        for column in columns:
            test = column[one["id"]]
            cells.append(
                ("passes" if test["passed"] else "fails" if test["passed"] is False else "abstains", test["passed"])
            )
        rows.append((one["category"], f"test {one['id']}", cells))
    note = "Hand-written tests: the judge must order the candidates as an expert does."
    return {"id": "tests", "title": "Ranking tests", "first": "Test", "note": note, "rows": rows}


def _chart(card: Card) -> Markup | None:
    cells = [
        (row["name"], row["agreement"]["rating"]) for row in card["judges"] if "rating" in row.get("agreement", {})
    ]
    cells = [(name, c) for name, c in cells if c["mean"] is not None]
    if not cells:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for i, (_, c) in enumerate(cells):
            if c["low"] is not None:
                axes.hlines(i, c["low"], c["high"], color="#1d2733", linewidth=1.2)
            axes.scatter([c["mean"]], [i], color=ALIGNED, edgecolors="#1d2733", s=42, zorder=3)
        if card["raters"] and card["raters"]["mean"] is not None:
            axes.axvline(card["raters"]["mean"], color=REFERENCE, linestyle="--", linewidth=1.2)
        axes.set_yticks(range(len(cells)), [name for name, _ in cells])
        axes.set_ylim(len(cells) - 0.4, -0.6)
        axes.set_xlim(min(0.0, *(c["low"] or c["mean"] for _, c in cells)), 1)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("rank correlation with the mean rating")

    names = ", ".join(f"{name} {c['mean']:.2f}" for name, c in cells)
    return draw("agreement", f"Rank correlation with the mean rating: {names}.", WIDTH, 0.7 + 0.27 * len(cells), paint)
