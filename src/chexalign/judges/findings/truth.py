"""CheXpert F1 of a report against the labels that its study's source knows, in place of a report's."""

from __future__ import annotations

from collections.abc import Sequence

from chexalign.errors import Abstain
from chexalign.judges.columns import library_form
from chexalign.judges.contract import Judgement, Studies, without_reading
from chexalign.judges.findings.label_sets import compare_sets, positive_findings
from chexalign.judges.findings.scrutiny import (
    NOTHING_OWED,
    after_comparing,
    before_comparing,
    charged,
    scrutinize,
)
from chexalign.judges.findings.statements import version
from chexalign.labels import positive_set
from chexalign.labels.readability import ENGLISH
from chexalign.labels.truth import study_labels
from chexalign.records import Study

UNASKED = "no study was given, and this judge reads its labels: use it in a recipe's score or evaluate section"


def truth_of(study: Study) -> dict[str, int | None]:
    """The study's labels. Raises Abstain where its source has none, or one that is no status."""
    try:
        labels = study_labels(study)
    except ValueError as error:
        raise Abstain(str(error)) from error
    if labels is None:
        raise Abstain(f"study {study.study_id} has no labels: its source gives none of the 14")
    return labels


class LabelF1:
    """F1 of the 13 findings: the report's by rules, the truth by the study's labels; uncertain counts as positive."""

    name = "chexpert_rule_f1"

    def __init__(self) -> None:
        self.version = f"2 truth=labels uncertain=1 rules {version()}"

    @library_form
    def score(self, reports: Sequence[str], references: Sequence[str], studies: Studies = None) -> list[Judgement]:
        """`references` are not read. Abstains without a study, or without labels of it."""
        if studies is None:
            return [Judgement(None, UNASKED)] * len(reports)
        return [_one(report, study) for report, study in zip(reports, studies, strict=True)]


def _one(report: str, study: Study) -> Judgement:
    try:
        truth = positive_set(truth_of(study)) - {"No Finding"}
    except Abstain as reason:
        return Judgement(None, str(reason))
    if (plain := without_reading(report, 0.0, ENGLISH)) is not None:
        return plain
    ours = scrutinize(report)
    if (silent := before_comparing(ours, NOTHING_OWED)) is not None:
        return Judgement(silent[0], details=silent[1])
    score, details = compare_sets(positive_findings(report), truth, charged(ours, NOTHING_OWED)[1])
    score, details = after_comparing(score, details, ours, NOTHING_OWED)
    return Judgement(score, details=details)
