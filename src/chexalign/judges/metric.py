"""A judge in the form of Hugging Face's `evaluate`: `metric("finding_f1_weighted").compute(predictions=…, references=…)`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chexalign.errors import RecipeError
from chexalign.judges import from_recipe
from chexalign.judges.contract import Judge
from chexalign.judges.registry import Options


@dataclass
class Metric:
    """`compute` at once, or `add_batch` and `add` first. Nothing is downloaded and no cache folder is made."""

    judge: Judge
    _predictions: list[Any] = field(default_factory=list, repr=False)
    _references: list[Any] = field(default_factory=list, repr=False)

    @property
    def name(self) -> str:
        """The judge's name, since `evaluate` keys its results by it."""
        return self.judge.name

    def add(self, *, prediction: str | None, reference: str | None) -> None:
        """One report and the radiologist's."""
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions: Iterable[Any], references: Iterable[Any]) -> None:
        """Columns of reports; both are kept until the next `compute`. Raises ValueError when they differ in length."""
        more, truth = list(predictions), list(references)
        if len(more) != len(truth):
            raise ValueError(f"{len(more)} predictions but {len(truth)} references")
        self._predictions += more
        self._references += truth

    def compute(
        self, *, predictions: Iterable[Any] | None = None, references: Iterable[Any] | None = None
    ) -> dict[str, Any]:
        """{the judge's name: mean of the scores given, "scores": one per report or None, "abstained": count, "n": count}.

        The mean is None when no report could be scored. Raises RecipeError when there is nothing to score.
        """
        if predictions is not None and references is not None:
            self.add_batch(predictions=predictions, references=references)
        elif predictions is not None or references is not None:
            raise RecipeError("compute needs predictions and references, or neither after add_batch")
        if not self._predictions:
            raise RecipeError("compute: there are no predictions; give some, or add_batch before")
        found = self.judge.score(self._predictions, self._references)
        self._predictions = []
        self._references = []
        scores = [answer.score for answer in found]
        known = [s for s in scores if s is not None]
        mean = sum(known) / len(known) if known else None
        return {self.name: mean, "scores": scores, "abstained": len(scores) - len(known), "n": len(scores)}


def metric(line: str, options: Options | None = None) -> Metric:
    """The judge of a recipe line as a metric; `options` by judge name. Raises RecipeError as `judges.load` does."""
    return Metric(from_recipe(line, options or {}))
