"""Reports without what only an earlier image can show, as CheXagent's data code cleans them.

Source: Stanford-AIMI/CheXagent, data_chexinstruct/dataset_processors/mimic_cxr_struct.py (the function `format_report`).
It works on words, not on meaning: "no prior" goes too, and a change told in other words stays.
"""

from __future__ import annotations

from dataclasses import replace

from chexalign.records import Study

EARLIER = ("prior", "previous", "remov", "earlier", "recurrence", "redemonstrate")
SWAPS = ((" again", ""), ("again ", ""), (" new.", " present."), (" new ", " "))


def without_earlier(text: str) -> str:
    """The text without sentences (split at ". ") that name an earlier image, and without "again" and "new"."""
    kept = ". ".join(s for s in text.split(". ") if not any(word in s.lower() for word in EARLIER))
    for old, new in SWAPS:
        kept = kept.replace(old, new)
    return kept


def cleaned(study: Study) -> Study:
    """The study with `without_earlier` applied to what is learnt and scored; indication and comparison stay as written."""
    return replace(study, findings=without_earlier(study.findings), impression=without_earlier(study.impression))
