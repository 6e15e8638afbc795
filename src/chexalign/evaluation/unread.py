"""What the judges could not read in a policy's reports, per study: sentences without a reading, and reports that are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chexalign.records import Verdict

Counts = tuple[
    int | None, int
]  # (unread sentences, 1 where the report itself is unreadable); None: this judge counts none
KEYS = ("unread", "unreadable")


def not_read(details: Mapping[str, Any]) -> Counts:
    """(unread sentences, unreadable report 0 or 1) in a verdict's details; of a combination the most that a part tells.

    >>> not_read({"unread": 2})
    (2, 0)
    >>> not_read({"parts": {"rouge_l": {"details": {"unreadable": "refusal"}}}})
    (None, 1)
    """
    parts = [not_read(part["details"]) for part in details.get("parts", {}).values()]
    sentences = [n for n in (details.get("unread"), *(p[0] for p in parts)) if n is not None]
    return max(sentences, default=None), max([int("unreadable" in details), *(p[1] for p in parts)])


def counted(verdicts: Sequence[Verdict], judges: Sequence[str]) -> dict[str, list[Counts]]:
    """Judge → one count per study, in the order of the verdicts."""
    return {j: [not_read(v.details) for v in verdicts if v.judge == j] for j in judges}


def totals(runs: Sequence[Sequence[Counts]], keep: Sequence[int]) -> dict[str, float]:
    """{unread, unreadable} over the studies `keep`, the mean over the runs (seeds); without `unread` where none is counted.

    >>> totals([[(2, 0), (None, 1)]], [0, 1])
    {'unread': 2, 'unreadable': 1}
    """
    found: dict[str, float] = {}
    for at, key in enumerate(KEYS):
        known = [n for run in runs for i in keep if (n := run[i][at]) is not None]
        if known:
            mean = sum(known) / len(runs)
            found[key] = int(mean) if mean == int(mean) else mean
    return found
