"""The recipe's part for preference algorithms. Defaults: the best for CheXagent with GREEN as judge (CheXalign, Table 7)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from chexalign.recipe_base import Rate, Section


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
