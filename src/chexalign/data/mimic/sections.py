"""Sections of a MIMIC-CXR report, as MIT-LCP's section_parser finds them, and with its losses mended on request.

Every published number on MIMIC-CXR rests on MIT's sections, so they are the default, losses and all. Source of the rules:
MIT-LCP/mimic-cxr, txt/section_parser.py and create_section_files.py (MIT licence); this is our own code for them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from chexalign.data.mimic.special import NAMED, RANGES, SPECIAL

HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
ANY_CASE = re.compile(
    r"(?:\A|\n) *([A-Za-z][A-Za-z ()/,-]*):(?=\s)"
)  # repaired: also "Findings:", also in the first line
INSIDE = re.compile(r"\s*([A-Z ()/,-]+):\s")  # a header that begins the text of another section
BLANK_LINE = "\n \n"
MEANS = {  # section → names that mean it, beside its own
    "impression": (
        "conclusion", "findings and impression", "findings/impression", "findings/ impression", "ndication", "impresson",
        "imprression", "imoression", "impressoin", "imprssion", "impresion", "imperssion", "mpression", "impession",
    ),
    "findings": (
        "chest, two views", "finding", "findins", "findindgs", "findgings", "findngs", "findnings", "finidngs",
        "reference findings",
    ),
    "indication": ("reason for examination", "reason for exam", "clinical indication", "idication"),
    "history": ("clinical history", "clinical information", "patient history", "pfi"),
    "comparison": (
        "comparisons", "reference exam", "comparison exam", "comparison film", "comparision", "comparsion",
        "comparrison", "comparisions",
    ),
    "examination": ("exam", "type of examination"),
    "recommendations": ("recommendation(s)", "recommendation"),
    "wet read": ("wetread",),
    "technique": (), "notification": (), "addendum": (), "date": (), "comment": (), "preamble": (),
}  # fmt: skip
NAMES = {name: section for section, names in MEANS.items() for name in (section, *names)}
CONTAINED = ("impression", "findings", "history", "comparison", "addendum")
VIEW_WORDS = re.compile(
    "chest|portable|pa and lateral|lateral and pa|ap and lateral|lateral and ap|frontal and|two views|frontal view|"
    "pa view|ap view|one view|lateral view|bone window|frontal upright|frontal semi-upright|ribs|pa and lat"
)
CONCLUSION = ("impression", "findings", "last_paragraph", "comparison")

Section = tuple[str, str]  # (name, text)


@dataclass(frozen=True)
class Report:
    """What is used of a report, single-spaced, and what its sectioning lost."""

    indication: str = ""
    comparison: str = ""
    findings: str = ""
    impression: str = ""
    last_paragraph: str = ""
    remarks: tuple[str, ...] = ()


def section_name(header: str) -> str:
    """The section that a header means: by MIT's table, by a word it contains, by a view it names, else itself."""
    plain = header.lower().strip()
    if plain in NAMES:
        return NAMES[plain]
    for name in CONTAINED:
        if name in plain:
            return name
    return "findings" if VIEW_WORDS.search(plain) else plain


def split_sections(text: str) -> list[Section]:
    """All sections in their order, exactly as MIT's parser has them, unnamed ones too.

    The search for the next header begins at the first newline after a header's own whitespace: a header on the line
    straight after an empty header is swallowed. Empty findings and impressions are left out. Where neither is there and
    the last section holds a blank line, what follows it is `last_paragraph`.
    """
    found = HEADER.search(text)
    if found is None:
        return _with_last_paragraph([("full report", text)])
    sections = [("preamble", text[: found.start(1)])]
    while found is not None:
        name, start = section_name(found.group(1)), found.end()
        newline = text.find("\n", start)
        found = HEADER.search(text, newline if newline >= 0 else start)
        sections.append((name, text[start : found.start() if found else len(text)]))
    return _with_last_paragraph(_without_empty(sections))


def _without_empty(sections: list[Section]) -> list[Section]:
    return [s for s in sections if s[0] not in ("impression", "findings") or s[1].strip()]


def _with_last_paragraph(sections: list[Section]) -> list[Section]:
    if any(name in ("impression", "findings") for name, _ in sections):
        return sections
    name, text = sections[-1]
    before, blank, after = text.partition(BLANK_LINE)
    return [*sections[:-1], (name, before), ("last_paragraph", after)] if blank else sections


def last(sections: list[Section], name: str) -> str:
    """The text of the last section of a name, "" where there is none."""
    return next((text for found, text in reversed(sections) if found == name), "")


def conclusion(study: int, text: str) -> str:
    """The text that MIMIC-CXR's CheXpert and NegBio labels were computed on."""
    if study in RANGES:
        first, end = RANGES[study]
        return text[first:end]
    sections = split_sections(text)
    if study in NAMED:
        return last(sections, NAMED[study]).strip()
    there = {name for name, _ in sections}
    return next((last(sections, name).strip() for name in CONCLUSION if name in there), "")


def mit_report(study: int, text: str) -> Report:
    """The row of mimic_cxr_sectioned.csv, with the indication; the 54 special studies have none and come out empty."""
    if study in SPECIAL:
        return Report(remarks=("one of the 54 that MIT sections by hand: no findings, no impression",))
    sections = split_sections(text)
    names = [name for name, _ in sections]
    remarks = []
    if names[0] == "full report":
        remarks.append("no header")
    if names.count("findings") > 1:
        remarks.append("several findings sections: the last is kept")
    if any(n in ("findings", "impression") and _begins_with_header(t) for n, t in sections):
        remarks.append("a header swallowed by the empty one before it")
    parts = {
        name: one_line(last(sections, name)) for name in ("comparison", "findings", "impression", "last_paragraph")
    }
    if not parts["findings"] and not parts["impression"]:
        remarks.append(
            "neither findings nor impression, but a last paragraph"
            if parts["last_paragraph"]
            else "no findings, no impression, no last paragraph"
        )
    return Report(one_line(last(sections, "indication") or last(sections, "history")), **parts, remarks=tuple(remarks))


def _begins_with_header(text: str) -> bool:
    found = INSIDE.match(text)
    return found is not None and section_name(found.group(1)) in NAMES.values()


def one_line(text: str) -> str:
    """Line breaks and runs of white space become one space each; "" for white space alone."""
    return " ".join(text.split())
