"""The labels of a study: exact ones where its source has them, else those of its report by rules."""

from __future__ import annotations

from chexalign.labels import FINDINGS, label_report
from chexalign.records import Study


def finding_labels(study: Study) -> list[float]:
    """13 zeros and ones: the source's exact labels where it has them, else rule labels of the report (uncertain → 0)."""
    known = study.labels.get("chexpert") or label_report(study.findings)
    return [1.0 if known.get(name) == 1 else 0.0 for name in FINDINGS]


def tower_labels(study: Study) -> list[float]:
    """The same, with NaN for a label that the study's source never gives (None there): nothing is learnt from it."""
    known = study.labels.get("chexpert") or {}
    unknown = {name for name, value in known.items() if value is None}
    return [float("nan") if n in unknown else x for n, x in zip(FINDINGS, finding_labels(study), strict=True)]


def list_of_findings(study: Study) -> str:
    """The short target of the grounding phase: `Cardiomegaly. Pleural Effusion.`, or `No Finding.`"""
    present = [name for name, label in zip(FINDINGS, finding_labels(study), strict=True) if label]
    return " ".join(f"{name}." for name in present or ["No Finding"])
