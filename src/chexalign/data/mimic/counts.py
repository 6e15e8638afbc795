"""How many rows each preset must give on a full download of MIMIC-CXR, and what to say where it gives others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chexalign.errors import WorkError

IMAGES = {
    "train": 368_960,
    "val": 2_991,
    "test": 5_159,
}  # Johnson et al., MIMIC-CXR-JPG; MIT-LCP's notebook of the paper


@dataclass(frozen=True)
class Preset:
    """Rows with findings by split, as their authors have them; None where they do not say."""

    rows: Mapping[str, int | None]
    what: str
    source: str
    note: str = ""


PRESETS = {
    "chexagent": Preset(
        {"train": 152_173, "val": None, "test": 2_347},
        "studies with findings, any view",
        "Stanford-AIMI/RRG24; rajpurkarlab/ReXrank",
        "CheXagent's restructured reports are not public: these are the reports' own sections",
    ),
    "llava_rad": Preset(
        {"train": 162_969, "val": 1_286, "test": 2_461},
        "AP and PA images whose study has findings",
        "LLaVA-Rad's PhysioNet page",
        "the rule-based texts; the GPT-4 ones are in LLaVA-Rad's own release (source: llava_rad)",
    ),
    "maira": Preset(
        {"train": None, "val": None, "test": 2_461},
        "AP and PA images whose study has findings",
        "Hyland et al., MAIRA-1",
    ),
    "r2gen": Preset(
        {"train": 270_790, "val": 2_130, "test": 3_858},
        "images, laterals too, whose study has findings",
        "cuhksz-nlp/R2Gen, annotation.json",
        "R2Gen's scores also lower-case the references, cut them and mask rare words; that is not done here",
    ),
}


def compare(preset: str, rows: Mapping[str, int], images: Mapping[str, int]) -> list[str]:
    """Lines with the counts there are beside those there should be. Raises WorkError where a full download differs."""
    known, lines = PRESETS[preset], []
    full = all(images.get(split, 0) == n for split, n in IMAGES.items())
    for split, should in known.rows.items():
        lines.append(f"{split}: {rows.get(split, 0):,} {known.what}" + (f"; should be {should:,}" if should else ""))
    wrong = [s for s, n in known.rows.items() if n is not None and rows.get(s, 0) != n]
    if full and wrong:
        raise WorkError(
            f"preset {preset} on a full download gives other counts than {known.source}: {' | '.join(lines)}; check "
            "studies.reports (all reports there?), or remove studies.preset"
        )
    if not full:
        there = ", ".join(f"{images.get(s, 0):,} of {n:,} {s}" for s, n in IMAGES.items())
        lines.append(f"not a full download (images: {there}), so other counts are no error")
    return [f"preset {preset} ({known.source})", *lines, *([known.note] if known.note else [])]
