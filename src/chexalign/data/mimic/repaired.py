"""`sections: repaired`: what MIT's sectioning loses, kept. It differs from every published number; the run says so."""

from __future__ import annotations

from chexalign.data.mimic.sections import (
    ANY_CASE,
    BLANK_LINE,
    NAMES,
    Report,
    Section,
    conclusion,
    one_line,
    section_name,
)
from chexalign.data.mimic.special import SPECIAL


def repaired_report(study: int, text: str) -> Report:
    """The sections of a report with four losses mended.

    A header straight after an empty one counts. Headers in small letters and in the first line count where their name is
    a known one. Several findings (or impressions) are joined in their order. Where neither is there, the text after the
    first blank line is the findings, and for the 54 special studies their conclusion is.
    """
    if study in SPECIAL:
        return Report(
            findings=one_line(conclusion(study, text)), remarks=("one of MIT's 54: its conclusion is the findings",)
        )
    sections = _split(text)

    def joined(name: str) -> str:
        return one_line(" ".join(t for n, t in sections if n == name))

    findings, impression, remarks = joined("findings"), joined("impression"), []
    if not findings and not impression:
        findings = one_line(sections[-1][1].partition(BLANK_LINE)[2])
        remarks = ["neither findings nor impression: the last paragraph is the findings"] if findings else []
    if sum(n == "findings" and bool(t.strip()) for n, t in sections) > 1:
        remarks.append("several findings sections: joined")
    return Report(
        joined("indication") or joined("history"), joined("comparison"), findings, impression, remarks=tuple(remarks)
    )


def _split(text: str) -> list[Section]:
    headers = [m for m in ANY_CASE.finditer(text) if _counts(m.group(1))]
    if not headers:
        return [("full report", text)]
    ends = [m.start() for m in headers[1:]] + [len(text)]
    sections = [(section_name(m.group(1)), text[m.end() : end]) for m, end in zip(headers, ends, strict=True)]
    return [("preamble", text[: headers[0].start()]), *sections]


def _counts(header: str) -> bool:
    """Capitals are a header as they are for MIT; in small letters only a name of MIT's table is."""
    return header.isupper() or header.lower().strip() in NAMES
