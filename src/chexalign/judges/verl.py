"""Our judges as verl's custom reward function. In verl's configuration:

    custom_reward_function:
      path: /…/chexalign/judges/verl.py     # python -c "import chexalign.judges.verl as v; print(v.__file__)"
      name: compute_score                   # compute_scores with reward_model.reward_manager=batch
      reward_kwargs: {judge: finding_f1_weighted, abstained: 0.0}

`reward_model.ground_truth` of a row is the radiologist's report.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chexalign.errors import WorkError
from chexalign.judges import from_recipe
from chexalign.judges.judgement import Judgement
from chexalign.judges.registry import Options
from chexalign.judges.rewarding import reward_rows

DEFAULT = "finding_f1_weighted"


def compute_score(
    data_source: Any,
    solution_str: str,
    ground_truth: str,
    extra_info: Any = None,
    judge: str = DEFAULT,
    options: Options | None = None,
    abstained: float | None = None,
) -> float:
    """The judge's score of one report.

    verl has no way to leave a sample out, so that an abstention raises WorkError with its reason, unless `abstained` says
    what it is to count as. `data_source` and `extra_info` are verl's and are not read.
    """
    return compute_scores([data_source], [solution_str], [ground_truth], None, judge, options, abstained)[0]


def compute_scores(
    data_sources: Sequence[Any],
    solution_strs: Sequence[str],
    ground_truths: Sequence[str],
    extra_infos: Any = None,
    judge: str = DEFAULT,
    options: Options | None = None,
    abstained: float | None = None,
) -> list[float]:
    """The same for a batch, judged together (verl's batch reward manager)."""
    found = reward_rows(from_recipe(judge, options or {}), solution_strs, ground_truths, None, None)
    return [_number(judge, answer, abstained) for answer in found]


def _number(judge: str, answer: Judgement, abstained: float | None) -> float:
    if answer.score is not None:
        return answer.score
    if abstained is None:
        raise WorkError(
            f"reward {judge!r} abstained: {answer.error}; set reward_kwargs.abstained to count it as a number"
        )
    return abstained
