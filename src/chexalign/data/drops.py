"""What a source could not use, or used with a remark: one line each, and a count per reason and split."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Drops:
    """Rows that could not be used: one line each with file, row and remedy, and a count per reason."""

    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # those of `lines` that the recipe did not ask for
    reasons: Counter[str] = field(default_factory=Counter)
    by_split: Counter[tuple[str, str]] = field(default_factory=Counter)  # (reason, split) → rows, where it is known
    notes: Counter[str] = field(default_factory=Counter)  # remark → studies it is true of; nothing was dropped
    places: dict[str, str] = field(default_factory=dict)  # study id → "file:row", where a user would look for it

    def add(self, reason: str, line: str, split: str = "", asked: bool = False) -> None:
        """Count one row; `asked`: the recipe leaves such rows out, so that it is no fault of the data."""
        self.reasons[reason] += 1
        self.lines.append(line)
        if not asked:
            self.faults.append(line)
        if split:
            self.by_split[reason, split] += 1

    def note(self, remark: str, times: int = 1) -> None:
        """Counts a remark about rows that were used all the same; nothing is dropped."""
        self.notes[remark] += times

    def where(self, study_id: str) -> str:
        """`file:row: study ID` where the row is known, else `study ID`."""
        return f"{self.places[study_id]}: study {study_id}" if study_id in self.places else f"study {study_id}"
