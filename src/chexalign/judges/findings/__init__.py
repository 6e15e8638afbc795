"""Judges of findings: what two reports say, compared by rules. See overlap.py and weighted.py."""

from chexalign.judges.findings.consistency import finding_consistency
from chexalign.judges.findings.label_sets import compare_sets, positive_findings
from chexalign.judges.findings.overlap import chexpert_rule_f1, finding_f1, units
from chexalign.judges.findings.weighted import finding_f1_weighted

__all__ = [
    "chexpert_rule_f1",
    "compare_sets",
    "finding_consistency",
    "finding_f1",
    "finding_f1_weighted",
    "positive_findings",
    "units",
]
