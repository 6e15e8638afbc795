"""What the reward functions of other trainers share: texts out of completions, groups, and answers that may be missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chexalign.errors import RecipeError
from chexalign.judges.columns import judged
from chexalign.judges.contract import Judge, reward
from chexalign.judges.judgement import Judgement, Judgements
from chexalign.judges.request import RewardRequest


def completion_text(completion: Any) -> str | None:
    """The text of a completion: itself, or the last turn of a conversation."""
    if isinstance(completion, list | tuple) and completion and isinstance(completion[-1], dict):
        return completion[-1].get("content")
    return completion


def reward_rows(
    judge: Judge, texts: Sequence[Any], references: Sequence[Any], group_ids: Sequence[str] | None, step: int | None
) -> Judgements:
    """One answer per completion; a row with a missing text abstains and the others are judged together."""

    def ask(rows: list[int], report_texts: list[str], truth: list[str]) -> list[Judgement]:
        groups = None if group_ids is None else [group_ids[i] for i in rows]
        return reward(judge, RewardRequest(report_texts, truth, group_ids=groups, step=step))

    return judged(texts, references, ask, judge.name, raw=True)


def reference_column(line: str, columns: dict[str, Any], name: str) -> Sequence[Any]:
    """The dataset's column with the radiologist's report. Raises RecipeError when it is not there."""
    if name not in columns:
        raise RecipeError(f"reward {line!r}: the dataset has no column {name!r} with the radiologist's report")
    return columns[name]
