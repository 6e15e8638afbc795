"""Our judges as ms-swift's reward functions. In the file that `--external_plugins` names:

    from swift.plugin import orms
    from chexalign.judges.swift import reward_class

    orms["report"] = reward_class("gate(format, finding_f1_weighted)", reference="solution")

and then `--reward_funcs report`. ms-swift hands the columns of its data set on, as TRL does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chexalign.judges import from_recipe
from chexalign.judges.registry import Options
from chexalign.judges.rewarding import completion_text, reference_column, reward_rows


def reward_class(line: str, options: Options | None = None, reference: str = "solution") -> type:
    """A class that ms-swift makes one object of and calls with `completions` and the data set's columns.

    `reference` is the column with the radiologist's report. An abstention is None, which ms-swift leaves out of the mean.
    Judges that compare a group or look at the step cannot be used: ms-swift names neither.
    """
    judge = from_recipe(line, options or {})

    class JudgeReward:
        def __init__(self, *_: Any, **__: Any) -> None:  # newer versions hand their arguments over
            self.name = judge.name

        def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
            truth = reference_column(line, columns, reference)
            return reward_rows(judge, [completion_text(c) for c in completions], truth, None, None).scores

    return JudgeReward
