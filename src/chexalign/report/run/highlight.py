"""Report text with marks: escaped, each mark shown by colour, by line style and by a symbol at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

# strongest first: where marks overlap the text takes the style of the strongest
KINDS = {"wrong": "✗", "missing": "∅", "uncertain": "?", "right": "✓"}
MEANINGS = {
    "right": "agrees with the reference report",
    "wrong": "contradicts the reference report or adds to it",
    "missing": "in the reference report, not in the model's",
    "uncertain": "stated with doubt",
}


@dataclass(frozen=True)
class Mark:
    """One stretch of text, `start` included and `end` not, with what the judge thinks of it."""

    start: int
    end: int
    kind: str
    label: str


def read_marks(rows: Any, length: int) -> list[Mark]:
    """The usable marks for a text of `length` characters: offsets clipped, empty and unknown ones left out."""
    marks = []
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict) or row.get("kind") not in KINDS:
            continue
        start, end = row.get("start"), row.get("end")
        if type(start) is int and type(end) is int and max(0, start) < min(length, end):
            marks.append(Mark(max(0, start), min(length, end), row["kind"], str(row.get("label") or "")))
    return sorted(marks, key=lambda m: (m.start, m.end, list(KINDS).index(m.kind), m.label))


def highlight(text: str, rows: Any) -> Markup:
    """The text as HTML. Marks may overlap or nest: the text is cut at every boundary and never repeated."""
    marks = read_marks(rows, len(text))
    edges = sorted({0, len(text)} | {m.start for m in marks} | {m.end for m in marks})
    pieces = []
    for start, end in zip(edges, edges[1:], strict=False):
        covering = [m for m in marks if m.start < end and m.end > start]
        pieces.append(_piece(text[start:end], covering, [m for m in covering if m.end == end]))
    return Markup("").join(pieces)


def _piece(text: str, covering: list[Mark], ending: list[Mark]) -> Markup:
    if not covering:
        return escape(text)
    kind = min((m.kind for m in covering), key=list(KINDS).index)
    title = "; ".join(dict.fromkeys(_describe(m) for m in covering))
    body = Markup('<mark class="{}" title="{}">{}</mark>').format(kind, title, text)
    ends = Markup("").join(
        Markup('<span class="symbol {}" aria-hidden="true">{}</span><span class="sr"> ({}) </span>').format(
            m.kind, KINDS[m.kind], _describe(m)
        )
        for m in _one_per_finding(ending)
    )
    return body + ends


def _describe(mark: Mark) -> str:
    return f"{mark.kind}: {mark.label}" if mark.label else mark.kind


def _one_per_finding(marks: list[Mark]) -> list[Mark]:
    """Marks that end together and say the same are shown once."""
    return list({(m.kind, m.label): m for m in marks}.values())
