"""Our judges as reward functions of TRL's GRPOTrainer: `GRPOTrainer(reward_funcs=reward_function("finding_f1"), …)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from chexalign.judges import from_recipe
from chexalign.judges.registry import Options
from chexalign.judges.rewarding import completion_text, reference_column, reward_rows


def reward_function(
    line: str, options: Options | None = None, reference: str = "reference"
) -> Callable[..., list[float | None]]:
    """The judge of a recipe line for TRL. `reference` is the dataset's column with the radiologist's report.

    An abstention is None, which TRL leaves out of the group's mean. `rank` sees TRL's groups (the samples of one prompt) and
    `every` its global step. Judges that look at the images cannot be used: TRL hands no study on.
    """
    judge = from_recipe(line, options or {}, frozenset({"group", "step"}))

    def score(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        truth = reference_column(line, columns, reference)
        state = columns.get("trainer_state")
        step = 0 if state is None else state.global_step
        texts = [completion_text(c) for c in completions]
        return reward_rows(judge, texts, truth, [str(p) for p in prompts], step).scores

    score.__name__ = judge.name  # TRL logs rewards under it
    return score
