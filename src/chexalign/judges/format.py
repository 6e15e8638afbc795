"""The format judge: the report stands between <report> and </report> and nothing stands outside (VALOR's format reward).

1 when it does, else 0. As a gate, `gate(format, finding_f1)` counts the other judge only where the format is right and
lets it see the report alone; added to another reward it would pay for form whatever the text says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from chexalign.judges.contract import Judgement, Studies, is_blank, same_length

_TAG = re.compile(r"<\s*/?\s*report\b[^<>]*>", re.IGNORECASE)
_WHOLE = re.compile(r"\s*<report>(.+)</report>\s*", re.DOTALL)
_OPENED = re.compile(r"<\s*/?\s*report\b", re.IGNORECASE)


def body_of(text: str) -> tuple[str, str | None]:
    """The report inside the tags and None, or the text without tags and what is wrong with its form."""
    whole = _WHOLE.fullmatch(text)
    if whole and not _OPENED.search(whole[1]):
        return whole[1].strip(), "nothing stands between the tags" if is_blank(whole[1]) else None
    stripped = _TAG.sub(" ", text).strip()
    if not _TAG.search(text):
        return stripped, "no <report> … </report>"
    return stripped, "not exactly one <report> … </report> with nothing outside"


class Format:
    name, version = "format", "1"

    def score(self, reports: Sequence[str], references: Sequence[str], studies: Studies = None) -> list[Judgement]:
        same_length(reports, references)
        found = [body_of(report) for report in reports]
        return [
            Judgement(0.0 if wrong else 1.0, details={"body": body, **({"wrong": wrong} if wrong else {})})
            for body, wrong in found
        ]


def format_judge() -> Format:
    return Format()
