"""OpenI's `XXXX` and MIMIC-CXR's `___`: de-identification took a word out, in some half of
OpenI's reports one that was no name at all ("chest x-XXXX").

Kept, a policy learns to write XXXX and an overlap score pays for it. Removed, what is left reads on as far as it can; the
word is not guessed, except the one that `x-XXXX` leaves no doubt about.
"""

from __future__ import annotations

import re
from dataclasses import replace

from chexalign.records import Study

MASK = re.compile(r"(?<![A-Za-z])X{3,}|(?<=[a-z0-9])X{4,}|_{3,}")  # also where it stuck to the word before
RULES = (
    (re.compile(r"\b([Xx])-X{3,}"), r"\1-ray"),
    (re.compile(r"_{3,}[- ]?(?:years?|yrs?|y)(?:[- ]?olds?|/?o)?(?![a-z])\s*", re.IGNORECASE), ""),
    (re.compile(r"-?_{3,}(?:-(?=\w))?"), " "),
    (re.compile(r"X{3,}-year-old\s*"), ""),  # an age that was taken out tells nothing
    (re.compile(r"-?(?:(?<![A-Za-z])X{3,}|(?<=[a-z0-9])X{4,})(?:-(?=\w))?(?:\d+\b)?"), " "),
    (re.compile(r"\s+([.,;:])"), r"\1"),
    (re.compile(r"([.,;:])(?:\s*[.,;:])*(?=\s*[.,;:])"), ""),
    (re.compile(r"\(\s*\)"), " "),
    (re.compile(r"^[\s.,;:]+"), ""),
    (re.compile(r"\s+"), " "),
)


def without_masks(text: str) -> str:
    """The text without its masks; a text without masks is returned as it is."""
    if not MASK.search(text):
        return text
    for pattern, put in RULES:
        text = pattern.sub(put, text)
    return text.strip()


def unmasked(study: Study) -> Study:
    """The study with the marks of removed words mended in its four texts; `without_masks` says how."""
    return replace(
        study,
        indication=without_masks(study.indication),
        comparison=without_masks(study.comparison),
        findings=without_masks(study.findings),
        impression=without_masks(study.impression),
    )
