"""Judges made from judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chexalign.judges import LC
from chexalign.judges.contract import Judge, Judgement
from chexalign.records import Study


@dataclass(frozen=True)
class LengthControlled:
    """score / max(words(report) / words(reference), 1): longer than the reference costs, shorter does not.

    The length control that CheXalign (ACL 2025) gives GREEN, for any judge. Words are what white space separates; a
    reference of no words has ratio 1, and a negative score is multiplied, so that length never helps. # our choices
    """

    inner: Judge

    @property
    def name(self) -> str:
        return LC + self.inner.name

    @property
    def version(self) -> str:
        return f"lc 1, {self.inner.version}"

    def score(
        self, reports: Sequence[str], references: Sequence[str], studies: Sequence[Study] | None = None
    ) -> list[Judgement]:
        answers = self.inner.score(reports, references, studies)
        return [_shorten(a, r, f) for a, r, f in zip(answers, reports, references, strict=True)]


def length_ratio(report: str, reference: str) -> float:
    """max(words(report) / words(reference), 1), and 1 for a reference of no words."""
    words = len(reference.split())
    return max(len(report.split()) / words, 1.0) if words else 1.0


def _shorten(answer: Judgement, report: str, reference: str) -> Judgement:
    if answer.score is None:
        return answer
    ratio = length_ratio(report, reference)
    score = answer.score / ratio if answer.score > 0 else answer.score * ratio
    return Judgement(score, details={**answer.details, "raw_score": answer.score, "length_ratio": ratio})


def length_controlled(judge: Judge) -> Judge:
    return LengthControlled(judge)
