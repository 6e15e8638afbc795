"""The page's section on over-optimisation: repetition, claims of change, and the gain by judges that training did not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chexalign.report.inputs import mapping
from chexalign.report.run.tables import SYMBOLS, Value, value
from chexalign.report.wording import cell, count, metric_name, number, percent, verdict, whole

SIGNS = {
    "repeated_4grams": "Share of 4-word sequences that the report has already had",
    "duplicated_sentences": "Share of sentences that the report has already had",
    "change_without_earlier_image": "Reports that claim a change where no earlier image was shown",
}


@dataclass(frozen=True)
class Paired:
    """Two values and their difference; `gain` and `seen` are of judges alone."""

    name: str
    before: Value
    after: Value
    difference: Value
    symbol: str
    meaning: str
    gain: Value = Value("")
    seen: bool = False


def gaming_section(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the template shows of evaluation/over_optimisation.json; None where the run has none."""
    if not found:
        return None
    signs, cleaned = mapping(found.get("signs")), mapping(found.get("without_duplicates"))
    judges = [mapping(row) for row in found.get("judges") or []]
    return {
        "trained_on": ", ".join(map(str, found.get("trained_on") or [])),
        "level": percent(number(found.get("level")) or 0.9),
        "n": whole(count(found.get("n_studies"))),
        "signs": [_paired(text, signs.get(name), ("baseline", "aligned")) for name, text in SIGNS.items()],
        "judges": [_judge(row, cleaned) for row in judges],
    }


def _judge(row: dict[str, Any], cleaned: dict[str, Any]) -> Paired:
    line = str(row.get("judge"))
    gain = value(cell(row, "gain_in_sd"), signed=True)
    names = ("as_written", "deduplicated")
    return _paired(metric_name(line), cleaned.get(line), names, gain, bool(row.get("seen")))


def _paired(name: str, cells: Any, sides: tuple[str, str], gain: Value = Value(""), seen: bool = False) -> Paired:
    before, after, change = (cell(cells, side) for side in (*sides, "difference"))
    symbol, meaning = SYMBOLS[verdict(change)]
    return Paired(name, value(before), value(after), value(change, signed=True), symbol, meaning, gain, seen)
