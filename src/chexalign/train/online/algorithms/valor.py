"""VALOR: text rewards first, then text and image together; what learns is chosen for each stage."""

from __future__ import annotations

from chexalign.recipe.online import Valor
from chexalign.recipe.train import Train
from chexalign.train.online.algorithms.base import OnlineAlgorithm, OnlineStage


def stages(train: Train, rounds: int) -> list[OnlineStage]:
    """R_text alone, then (1 − λ)·R_text + λ·r_vis. A stage of no rounds is left out."""
    s, text = train.algorithm, train.reward
    assert isinstance(s, Valor) and text is not None
    first, patience = round(s.stage_1_share * rounds), train.watch.patience
    freeze_2 = train.freeze if s.freeze_2 is None else s.freeze_2  # `[]` freezes nothing
    both = [
        OnlineStage(text, first, train.freeze, s.plateau or patience),
        OnlineStage(mixed(text, s.visual, s.lambda_vis), rounds - first, freeze_2, patience),
    ]
    return [stage for stage in both if stage.rounds]


def mixed(text: str, visual: str, share: float) -> str:
    """The line of both rewards; one whose weight is 0 is not asked at all."""
    if share in (0, 1):
        return visual if share else text
    return f"{1 - share:g}*({text}) + {share:g}*({visual})"


ALGORITHM = OnlineAlgorithm(stages=stages)
