"""What a judge is: something with a name and a version that scores reports against references, or says why it cannot."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from chexalign.records import Study


@dataclass(frozen=True)
class Judgement:
    """One answer. `score` is None exactly when `error` says why the judge abstained."""

    score: float | None
    error: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Judge(Protocol):
    """The role every judge fills. Higher scores are better; results never depend on batch size or order."""

    name: str
    version: str

    def score(
        self, reports: Sequence[str], references: Sequence[str], studies: Sequence[Study] | None = None
    ) -> list[Judgement]: ...


def is_blank(text: str) -> bool:
    """True when the text holds no letter or digit: nothing, white space or punctuation alone."""
    return not any(c.isalnum() for c in text)


@dataclass(frozen=True)
class TextJudge:
    """A judge made of two pure functions: `encode` once per distinct text, `compare(report, reference)` per pair.

    A blank reference gives an abstention; a blank report gives 0, the worst answer there is.
    """

    name: str
    version: str
    encode: Callable[[str], Any]
    compare: Callable[[Any, Any], tuple[float, dict[str, Any]]]
    _memory: dict[bytes, Any] = field(default_factory=dict, repr=False, compare=False)

    def features(self, text: str) -> Any:
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if key not in self._memory:
            self._memory[key] = self.encode(text)
        return self._memory[key]

    def score(
        self, reports: Sequence[str], references: Sequence[str], studies: Sequence[Study] | None = None
    ) -> list[Judgement]:
        if len(reports) != len(references):
            raise ValueError(f"{len(reports)} reports but {len(references)} references")
        return [self._one(report, reference) for report, reference in zip(reports, references, strict=True)]

    def _one(self, report: str, reference: str) -> Judgement:
        if is_blank(reference):
            return Judgement(None, "the reference is empty")
        if is_blank(report):
            return Judgement(0.0, details={"note": "the report is empty"})
        score, details = self.compare(self.features(report), self.features(reference))
        return Judgement(score, details=details)
