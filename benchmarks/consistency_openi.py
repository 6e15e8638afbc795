"""What finding_consistency says of radiologists' own impressions on OpenI: python benchmarks/consistency_openi.py

Each impression is judged against its own findings section, and against the one half the list away: what a judge of
consistency must tell apart. Masks are removed, as in recipes/rgro_openi.yaml. Writes benchmarks/results/consistency_openi.json.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from chexalign import stats
from chexalign.data.masks import MASK, unmasked
from chexalign.data.openi import read_openi
from chexalign.evaluation.answers import is_abnormal
from chexalign.judges import load
from chexalign.judges.contract import is_blank
from chexalign.records import Study

RESULTS = Path(__file__).resolve().parent / "results" / "consistency_openi.json"
BOOT: dict[str, Any] = {"n_boot": 1000, "seed": 0, "level": 0.9}


def whole_studies() -> tuple[list[Study], dict[str, int]]:
    """Studies with both sections, masks removed, and in how many of them each section held a mask."""
    raw = [
        s for s in read_openi(None, lambda patient_id: "test") if not (is_blank(s.findings) or is_blank(s.impression))
    ]
    masked = {name: sum(bool(MASK.search(getattr(s, name))) for s in raw) for name in ("findings", "impression")}
    return [unmasked(s) for s in raw], masked


def scores_of(studies: Sequence[Study]) -> tuple[list[float | None], Counter[str]]:
    """The judge's scores of the studies' own impressions, and its notes."""
    answers = load("finding_consistency").score([s.impression for s in studies], [""] * len(studies), studies)
    notes = Counter(str(a.error or a.details["note"]) for a in answers if a.error or a.details.get("note"))
    return [a.score for a in answers], notes


def measure() -> dict[str, Any]:
    studies, masked = whole_studies()
    n = len(studies)
    others = [replace(s, findings=studies[(i + n // 2) % n].findings) for i, s in enumerate(studies)]
    own, notes = scores_of(studies)
    other, _ = scores_of(others)
    abnormal = [i for i, s in enumerate(studies) if is_abnormal(s.impression)]
    return {
        "n": n,
        "masked": masked,
        "own": stats.mean_cell(own, **BOOT),
        "other": stats.mean_cell(other, **BOOT),
        "difference": stats.paired_difference(other, own, **BOOT),
        "own_abnormal": stats.mean_cell([own[i] for i in abnormal], **BOOT),
        "other_abnormal": stats.mean_cell([other[i] for i in abnormal], **BOOT),
        "notes": dict(notes),
    }


def main() -> None:
    found = measure()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    for name, cell in found.items():
        print(name, cell if not isinstance(cell, dict) or "mean" not in cell else _words(cell))


def _words(cell: dict[str, Any]) -> str:
    return f"{cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}] n {cell['n']}, abstained {cell['abstained']}"


if __name__ == "__main__":
    main()
