"""What a reward judge is asked: reports, their references, and what else there is to look at, in one record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from chexalign.cleaning import clean
from chexalign.records import Study

T = TypeVar("T")


@dataclass(frozen=True)
class RewardRequest:
    """N reports to be judged. Every sequence has N entries; the fields after `references` may be unknown (None)."""

    reports: Sequence[str]
    references: Sequence[str]  # the radiologist's report of each
    studies: Sequence[Study] | None = None
    group_ids: Sequence[str] | None = None  # reports with one id were sampled for one prompt
    step: int | None = None  # the training step, counted from 0
    written: Sequence[str] | None = None  # what the policy wrote, where `reports` are the texts inside its tags

    def __post_init__(self) -> None:
        """Raises ValueError when two fields have different lengths."""
        for what in ("references", "studies", "group_ids", "written"):
            values = getattr(self, what)
            if values is not None and len(values) != len(self.reports):
                raise ValueError(f"{len(self.reports)} reports but {len(values)} {what.replace('_', ' ')}")

    def cleaned(self) -> RewardRequest:
        """The same without the markup that models write around reports; `written` then keeps what was there."""
        reports = [clean(text) for text in self.reports]
        references = [clean(text) for text in self.references]
        if reports == list(self.reports) and references == list(self.references):
            return self
        return replace(self, reports=reports, references=references, written=self.written or self.reports)

    def rows(self, keep: Sequence[int]) -> RewardRequest:
        """The request about the reports at these positions alone."""

        return RewardRequest(
            [self.reports[i] for i in keep],
            [self.references[i] for i in keep],
            _kept(self.studies, keep),
            _kept(self.group_ids, keep),
            self.step,
            _kept(self.written, keep),
        )


def _kept(values: Sequence[T] | None, keep: Sequence[int]) -> list[T] | None:
    return None if values is None else [values[i] for i in keep]
