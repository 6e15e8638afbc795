"""The measures of a text and which finding they belong to: "previously 8 mm, now 16 mm" is 16, "2 x 3 cm" is 30."""

from __future__ import annotations

import re
from bisect import bisect_left

NEAR = 60  # characters between a measure and its finding # our choice
SEVERAL = 0.0  # several measures said of one finding, in place of one of them
SAME_SIZE = 0.7  # two measures agree when the smaller is at least this share of the larger # our choice
_MEASURE = re.compile(
    r"(?P<before>\b(?:previous(?:ly)?|formerly|prior|from|compared (?:to|with))\b[ \w:]{0,12}?)?"
    r"(?P<sizes>\d+(?:\.\d+)?(?:\s?(?:cm|mm)?\s*(?:x|\u00d7|by)\s*\d+(?:\.\d+)?)*)\s?-?(?P<unit>cm|mm)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")

Measures = list[tuple[int, float]]


def measures_of(text: str) -> Measures:
    """(place, mm) of every measure of the present study, the largest of several dimensions."""
    if "m" not in text and "M" not in text:
        return []
    return [
        (m.start("sizes"), max(map(float, _NUMBER.findall(m["sizes"]))) * (10 if m["unit"].lower() == "cm" else 1))
        for m in _MEASURE.finditer(text)
        if m["before"] is None
    ]


def size_of(start: int, end: int, measures: Measures) -> float | None:
    """The measure nearest to the finding at [start, end), in mm; SEVERAL where three different ones are near, None for none."""
    if not measures:
        return None
    at = bisect_left(measures, (start, 0.0))
    near = [(min(abs(p - start), abs(p - end)), mm) for p, mm in measures[max(0, at - 2) : at + 3]]
    near = [(away, mm) for away, mm in near if away <= NEAR]
    if len({mm for _, mm in near}) > 2:
        return SEVERAL
    return min(near)[1] if near else None


def same_size(a: float, b: float) -> bool:
    """Whether two measures in mm agree; SEVERAL agrees with itself alone."""
    return a == b or min(a, b) >= SAME_SIZE * max(a, b)
