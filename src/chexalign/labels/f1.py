"""F1 between label rows of any labeller (rules, CheXbert): per report, and per corpus micro, macro and by example.

A row is {label: 1 present | 0 absent | -1 uncertain | None not mentioned}. What uncertain means must be said:
`positive` (CheXbert's report-generation mode, which published numbers use), `negative`, or `ignore` (that label of that
report is left out on both sides). F1 = 2·tp / (2·tp + fp + fn). Over nothing at all a report scores 1 (our choice: a
normal report for a normal study is right), while a class that occurs nowhere counts 0 in the macro mean, as in
scikit-learn with zero_division 0. Tools of the CheXbert family return exact-match accuracy per report: `exact_match`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from chexalign.labels import FINDINGS
from chexalign.records import FIVE

Row = Mapping[str, int | None]
Uncertain = Literal["positive", "negative", "ignore"]


def calls(report: Row, reference: Row, labels: Sequence[str], uncertain: Uncertain) -> Iterator[tuple[str, bool, bool]]:
    """(label, the report has it, the reference has it) for every label that counts."""
    for label in labels:
        pair = (report[label], reference[label])
        if not (uncertain == "ignore" and -1 in pair):
            ours, theirs = (s == 1 or (s == -1 and uncertain == "positive") for s in pair)
            yield label, ours, theirs


def report_f1(
    report: Row, reference: Row, labels: Sequence[str] = FINDINGS, uncertain: Uncertain = "positive"
) -> float:
    """F1 over the positive labels of one report; 1 when neither side has any."""
    both = [(a, b) for _, a, b in calls(report, reference, labels, uncertain)]
    positives = sum(a + b for a, b in both)
    return 2 * sum(a and b for a, b in both) / positives if positives else 1.0


def exact_match(report: Row, reference: Row, labels: Sequence[str] = FIVE, uncertain: Uncertain = "positive") -> float:
    """1 when every label that counts agrees, else 0: what f1chexbert and RadEval call the accuracy of a sample."""
    return float(all(a == b for _, a, b in calls(report, reference, labels, uncertain)))


def corpus_f1(
    reports: Sequence[Row],
    references: Sequence[Row],
    labels: Sequence[str] = FINDINGS,
    uncertain: Uncertain = "positive",
) -> dict[str, float]:
    """`micro` pools the counts of all labels, `macro` is the mean over labels, `example` the mean of `report_f1`."""
    if len(reports) != len(references) or not reports:
        raise ValueError(f"{len(reports)} reports and {len(references)} references; give as many of both, at least one")
    hits = dict.fromkeys(labels, 0)
    positives = dict.fromkeys(labels, 0)  # 2·tp + fp + fn
    for report, reference in zip(reports, references, strict=True):
        for label, ours, theirs in calls(report, reference, labels, uncertain):
            hits[label] += ours and theirs
            positives[label] += ours + theirs
    total = sum(positives.values())
    each = [2 * hits[k] / positives[k] if positives[k] else 0.0 for k in labels]
    by_report = [report_f1(a, b, labels, uncertain) for a, b in zip(reports, references, strict=True)]
    return {
        "micro": 2 * sum(hits.values()) / total if total else 0.0,
        "macro": sum(each) / len(each),
        "example": sum(by_report) / len(by_report),
    }


def label_counts(
    reports: Sequence[Row],
    references: Sequence[Row],
    labels: Sequence[str] = FINDINGS,
    uncertain: Uncertain = "positive",
) -> dict[str, tuple[int, int, int]]:
    """Per label (true positives, positives of the reports, positives of the references), over the corpus."""
    found = {label: [0, 0, 0] for label in labels}
    for report, reference in zip(reports, references, strict=True):
        for label, ours, theirs in calls(report, reference, labels, uncertain):
            for i, hit in enumerate((ours and theirs, ours, theirs)):
                found[label][i] += hit
    return {label: (a, b, c) for label, (a, b, c) in found.items()}
