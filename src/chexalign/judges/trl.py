"""Our judges as reward functions of TRL's GRPOTrainer: `GRPOTrainer(reward_funcs=reward_function("finding_f1"), …)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from chexalign.errors import RecipeError
from chexalign.judges import from_recipe
from chexalign.judges.contract import reward
from chexalign.judges.registry import Options
from chexalign.judges.request import RewardRequest


def reward_function(
    line: str, options: Options | None = None, reference: str = "reference"
) -> Callable[..., list[float | None]]:
    """The judge of a recipe line for TRL. `reference` is the dataset's column with the radiologist's report.

    An abstention is None, which TRL leaves out of the group's mean. `rank` sees TRL's groups (the samples of one prompt) and
    `every` its global step. Judges that look at the images cannot be used: TRL hands no study on.
    """
    judge = from_recipe(line, options or {}, frozenset({"group", "step"}))

    def score(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        if reference not in columns:
            raise RecipeError(f"reward {line!r}: the dataset has no column {reference!r} with the radiologist's report")
        texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
        state = columns.get("trainer_state")
        step = 0 if state is None else state.global_step
        request = RewardRequest(texts, columns[reference], group_ids=[str(p) for p in prompts], step=step)
        return [answer.score for answer in reward(judge, request)]

    score.__name__ = judge.name  # TRL logs rewards under it
    return score
