"""A judge's answer about one report, and a list of answers that is also a table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chexalign.errors import RecipeError

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Judgement:
    """One answer. `score` is None exactly when `error` says why the judge abstained."""

    score: float | None
    error: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """A score that is no number is a failure, and a failure is not a score."""
        if self.score is not None and not math.isfinite(self.score):
            object.__setattr__(self, "error", f"the judge's score was {self.score}")
            object.__setattr__(self, "score", None)


class Judgements(list[Judgement]):
    """The answers of one call, in order: a list, with its scores as numbers and as a pandas table."""

    def __init__(self, answers: Iterable[Judgement] = (), judge: str = ""):
        super().__init__(answers)
        self.judge = judge

    @property
    def scores(self) -> list[float | None]:
        """One score per report, None where the judge abstained."""
        return [answer.score for answer in self]

    @property
    def mean(self) -> float | None:
        """The mean of the scores that were given; None when there is none. Look at `abstained` beside it."""
        known = [answer.score for answer in self if answer.score is not None]
        return sum(known) / len(known) if known else None

    @property
    def abstained(self) -> int:
        """How many answers have no score. They are left out of means: neither 0 nor 1."""
        return sum(answer.score is None for answer in self)

    def to_pandas(self) -> pandas.DataFrame:
        """One row per report: judge, score (missing where it abstained), error, and the details as a dict.

        Raises RecipeError when pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise RecipeError("to_pandas needs pandas: pip install pandas") from error
        rows = [(self.judge, a.score, a.error, a.details) for a in self]
        table = pandas.DataFrame(rows, columns=["judge", "score", "error", "details"])
        return table.astype({"score": "Float64"})
