"""What a judge is: it has a name and a version, and scores reports against references or says why it cannot."""

from __future__ import annotations

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

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def score(
        self, reports: Sequence[str], references: Sequence[str], studies: Sequence[Study] | None = None
    ) -> list[Judgement]: ...


def is_blank(text: str) -> bool:
    """True when the text holds no letter or digit: nothing, white space or punctuation alone."""
    return not any(c.isalnum() for c in text)


class Abstain(Exception):
    """Raised inside a judge when this pair cannot be judged; the message becomes the Judgement's `error`."""


MEMORY = 50_000  # texts whose features a judge keeps; the oldest go first


@dataclass(frozen=True)
class TextJudge:
    """A judge made of two pure functions: `encode` once per distinct text, `compare(report, reference)` per pair.

    A blank reference gives an abstention, and so does either function by raising Abstain; a blank report gives 0, the
    worst answer there is.
    """

    name: str
    version: str
    encode: Callable[[str], Any]
    compare: Callable[[Any, Any], tuple[float, dict[str, Any]]]
    _memory: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def features(self, text: str) -> Any:
        if text not in self._memory:
            if len(self._memory) >= MEMORY:
                self._memory.pop(next(iter(self._memory)))
            self._memory[text] = self.encode(text)
        return self._memory[text]

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
        try:
            score, details = self.compare(self.features(report), self.features(reference))
        except Abstain as reason:
            return Judgement(None, str(reason))
        return Judgement(score, details=details)
