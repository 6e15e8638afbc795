"""The recipe's part for preference pairs and the algorithms that learn from them.

The algorithms' defaults are the best for CheXagent with GREEN as judge (CheXalign, Table 7).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from chexalign.recipe.base import Rate, Section


class Pairs(Section):
    """Which two of a study's samples become a preference: best and worst by one judge, after CheXalign."""

    judge: str = "finding_f1"  # one of score.judges
    rule: Literal["best_worst", "reference_loser", "reference_worst"] = "best_worst"  # what is chosen and rejected
    min_margin: Annotated[float, Field(ge=0)] = (
        1e-8  # a pair is kept when best − worst exceeds this (CheXalign's release)
    )
    weight: Literal["equal", "score_gap"] = "equal"  # of a pair's loss; score_gap: chosen − rejected score, of mean 1
    feedback: Path | None = None  # a person's preferences (`chexalign review`), as pairs beside the judge's own
    feedback_weight: Rate = 5.0  # of each of those: our choice

    @model_validator(mode="after")
    def _scored(self) -> Pairs:
        if self.weight == "score_gap" and self.rule != "best_worst":
            raise ValueError(f"weight score_gap needs rule best_worst: the text that {self.rule} chooses has no score")
        return self


class Sft(Section):
    """Supervised fine-tuning on the chosen texts."""

    type: Literal["sft"] = "sft"


class Dpo(Section):
    """DPO, optionally with an NLL term on the chosen report (mean per token)."""

    type: Literal["dpo"] = "dpo"
    beta: Rate = 0.05
    nll: Annotated[float, Field(ge=0)] = 0.0


class LcDpo(Section):
    """Length-controlled DPO."""

    type: Literal["lc_dpo"] = "lc_dpo"
    beta: Rate = 0.05
    alpha: Annotated[float, Field(ge=0)] = 0.01


class Ipo(Section):
    """IPO on summed log-probs, or on per-token averages (the CheXalign release and TRL)."""

    type: Literal["ipo"] = "ipo"
    tau: Rate = 1.0
    average_log_prob: bool = True


class Kto(Section):
    """KTO: each report of a pair counts alone. Its KL is estimated per micro-batch, on reports of other patients."""

    type: Literal["kto"] = "kto"
    beta: Rate = 0.05
    desirable_weight: Annotated[float, Field(ge=0)] = 1.0
    undesirable_weight: Annotated[float, Field(ge=0)] = 1.0
    nll: Annotated[float, Field(ge=0)] = 0.0


class Orpo(Section):
    """ORPO: no reference model."""

    type: Literal["orpo"] = "orpo"
    lam: Annotated[float, Field(ge=0)] = 5.0
