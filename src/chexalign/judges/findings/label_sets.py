"""Two sets of labels compared: which hold in both, which in one alone, and the F1 of it."""

from __future__ import annotations

from typing import Any

from chexalign.labels import label_report, positive_set

UNCERTAIN_IS_POSITIVE = True  # in chexpert_rule_f1: the convention of CheXbert's report-generation mode


def positive_findings(text: str) -> frozenset[str]:
    """The positive ones among the 13 findings."""
    return positive_set(label_report(text), uncertain_is_positive=UNCERTAIN_IS_POSITIVE) - {"No Finding"}


def compare_sets(
    report: frozenset[str], reference: frozenset[str], contradicted: frozenset[str] = frozenset()
) -> tuple[float, dict[str, Any]]:
    """2·tp / (2·tp + fp + fn), 1 when both sets are empty; a finding that is stated and denied is an fp more."""
    details = {"tp": sorted(report & reference), "fp": sorted(report - reference), "fn": sorted(reference - report)}
    total = len(report) + len(reference) + len(contradicted)
    return (2 * len(details["tp"]) / total if total else 1.0), details
