"""What a text owes an explanation for: sentences that the rules cannot read, and findings that it states and denies at once.

The judges of findings charge for both, or writing what nobody can check would be free: "GGO, broken ribs" on a normal chest, or
"No pneumothorax. Left pneumothorax." to be right either way. What the reference does too is never charged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from chexalign.errors import Abstain
from chexalign.judges.findings.statements import read_text
from chexalign.labels import find_mentions
from chexalign.labels.context import ABSENT, PRESENT

UNREAD_COST = 0.05  # our choice: twenty sentences that nobody can read halve a score
BROAD = frozenset({"Lung Opacity", "opacity"})  # a word for many things: "scar. No opacity." is no contradiction
NO_CHEST = "says nothing about a chest that the rules can read"
_LIMITED = re.compile(  # "no large effusion" and "small effusion" do not contradict each other
    r"\b(?:focal|acute|new|other|further|additional|large|significant|definite|displaced|residual|recurrent|discrete|more"
    r"|suspicious|obvious|gross|overt|sizable|loculated|lobar|tension|superimposed|measurable|right|left|bilateral|second"
    r"|confluent|dense|frank|moderate|longer|interval|associated|underlying|pulmonary|apical|basal|upper|lower)\b[\w\s,/-]{0,40}\Z",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"\b(?:no|not|without|nil|neither|never|negative for|free of|absence of)\b[^.;\n]*\Z", re.IGNORECASE
)
_DENIED_AFTER = re.compile(
    r"\s+(?:is|are) (?:absent|ruled out|excluded|not (?:present|seen|identified))\b", re.IGNORECASE
)
_LOOK_BACK = 60  # characters before a denied finding that may limit the denial


class Said(Protocol):
    """A mention of the labels' or of the concepts' reading."""

    @property
    def status(self) -> int:
        """PRESENT 1, ABSENT 0 or UNCERTAIN -1, of labels.context."""

    @property
    def start(self) -> int:
        """The first character of the mention in the text."""

    @property
    def end(self) -> int:
        """The character after its last one."""


class Scrutiny(NamedTuple):
    """What a report is charged for in the judges of findings, unless the reference does it too."""

    speaks: bool  # whether the text speaks of a chest at all
    unread: tuple[str, ...]  # the sentences that were not read, in lower case
    contradicted: frozenset[str]  # labels that are stated and denied


NOTHING_OWED = Scrutiny(True, (), frozenset())  # of a truth that is no text


@lru_cache(maxsize=50_000)
def scrutinize(text: str) -> Scrutiny:
    """Reads a text twice: by the vocabulary of concepts.toml (sentences) and by the rule labels (contradictions)."""
    reading = read_text(text)
    mentions = [(m.label, m.side, m) for m in find_mentions(text)]
    return Scrutiny(reading.speaks, reading.unread, contradictions(text, mentions))


def contradictions(text: str, mentions: Iterable[tuple[str, str | None, Said]]) -> frozenset[str]:
    """Names that are stated for sure and denied without limit on the same side; (name, side, mention) each."""
    rows = list(mentions)
    stated = {(name, side) for name, side, m in rows if m.status == PRESENT}
    found = set()
    for name, side, m in rows:
        if m.status != ABSENT or name in BROAD:
            continue
        hit = {s for n, s in stated if n == name and (side is None or s in (side, "bilateral") or side == "bilateral")}
        denied = _DENIED.search(text[max(0, m.start - _LOOK_BACK) : m.start]) or _DENIED_AFTER.match(text, m.end)
        if hit and denied and (side is not None or not _LIMITED.search(text[max(0, m.start - _LOOK_BACK) : m.start])):
            found.add(name)
    return frozenset(found)


def charged(report: Scrutiny, reference: Scrutiny) -> tuple[int, frozenset[str]]:
    """(unread sentences beyond as many as the reference has, contradicted names that the reference does not contradict)."""
    return max(0, len(report.unread) - len(reference.unread)), report.contradicted - reference.contradicted


def before_comparing(report: Scrutiny, reference: Scrutiny) -> tuple[float, dict[str, Any]] | None:
    """The lowest score for a report that says nothing; raises Abstain where the reference does; None for all others."""
    if not reference.speaks:
        raise Abstain(f"the reference {NO_CHEST}")
    if not report.speaks:
        return 0.0, {"note": f"the report {NO_CHEST}", "unread": len(report.unread)}
    return None


def after_comparing(
    score: float, details: dict[str, Any], report: Scrutiny, reference: Scrutiny
) -> tuple[float, dict[str, Any]]:
    """score / (1 + UNREAD_COST · the unread sentences that the reference lacks); both counts are in the details."""
    unread, contradicted = charged(report, reference)
    told = {"unread": len(report.unread), **({"contradicted": sorted(contradicted)} if contradicted else {})}
    return score / (1 + UNREAD_COST * unread), {**details, **told}
