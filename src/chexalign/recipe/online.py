"""The recipe's part for online alignment: algorithms that learn from rewards of their own samples.

The papers give few of these numbers; every default here is our choice unless a line says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from chexalign.recipe.base import Count, Rate, Section, Share, Weight
from chexalign.recipe.engine import Engine, InProcess, refuse_endpoint

Part = Literal["tower", "projector", "decoder"]


class PolicyGradient(Section):
    """What all of them share: the clipped surrogate over a group of samples, minus a KL to the frozen baseline."""

    clip_eps: Rate = 0.2  # the ratio's range is 1 ± this (PPO's and TRL's default; GSPO wants about 3e-4)
    kl: Weight = 0.04  # weight of the k3 estimate of KL(policy ‖ baseline), per token (GRPO's paper)
    scale: Literal["group", "none", "rank"] = "group"  # (r − mean)/sd, r − mean (Dr.GRPO), or ranks (VALOR)
    average: Literal["sequence", "constant"] = "sequence"  # a completion's tokens: their mean, or sum / max_new_tokens
    ratio: Literal["token", "sequence"] = "token"  # "sequence": one ratio per completion, its geometric mean (GSPO)
    eps: Weight = 1e-4  # beside the sd


class Grpo(PolicyGradient):
    """GRPO. Dr.GRPO is `scale: none, average: constant`; GSPO is `ratio: sequence`."""

    type: Literal["grpo"] = "grpo"
    sft: Weight = 0.0  # weight of the mean NLL per token of the radiologist's report, scored beside the samples


class OraPo(PolicyGradient):
    """OraPO: GRPO mixed with a DPO oracle (the radiologist's report against the group), by the zero-reward rate's EMA."""

    type: Literal["orapo"] = "orapo"
    average: Literal["sequence", "constant"] = "constant"  # the paper's Dr.GRPO length treatment
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    start: Share = 1.0  # a prompt's EMA before it is first seen: 1 trusts the oracle until a sample earns something
    w_min: Share = 0.05
    w_max: Share = 0.9
    gamma: Rate = 1.0
    oracle_beta: Rate = 0.1

    @model_validator(mode="after")
    def _ordered(self) -> OraPo:
        if self.w_min > self.w_max:
            raise ValueError(f"w_min {self.w_min:g} is above w_max {self.w_max:g}")
        return self


class Valor(PolicyGradient):
    """VALOR: stage 1 on `train.reward` (R_text), stage 2 on (1 − lambda_vis)·R_text + lambda_vis·`visual`."""

    type: Literal["valor"] = "valor"
    scale: Literal["group", "none", "rank"] = "rank"
    lambda_vis: Share = 0.5  # best .4 to .6 in the paper; 1.0 diverged there
    visual: str = "rank(visual)"
    stage_1_share: Share = 0.5  # of the rounds, before stage 2 begins
    plateau: Annotated[int, Field(ge=0)] = (
        0  # stage 1 also ends after this many validations without a better one; 0: no
    )
    freeze_2: tuple[Part, ...] | None = None  # what does not learn in stage 2; `train.freeze` when absent


class OnlineDpo(Section):
    """On-policy DPO: each round's best sample of a group against its worst; the reference is the frozen baseline."""

    type: Literal["online_dpo"] = "online_dpo"
    beta: Rate = 0.05  # CheXalign's best for offline DPO
    alpha: Weight = 0.0  # length control as in lc_dpo
    nll: Weight = 0.0  # weight of the best sample's mean NLL per token


class OnlineKto(Section):
    """On-policy KTO: samples above their group's mean are desirable, below it undesirable; z from the samples' own KL."""

    type: Literal["online_kto"] = "online_kto"
    beta: Rate = 0.05  # CheXalign's best for offline KTO with GREEN
    desirable_weight: Weight = 1.0
    undesirable_weight: Weight = 1.0


class Rollout(Section):
    """How the policy samples while it learns. One round: a group of `n` samples for each of `train.batch_size` studies."""

    n: Annotated[int, Field(ge=2)] = 8
    temperature: Rate = (
        1.0  # log-probs, ratios and the KL are of what is drawn at it: logits over the temperature, as in TRL
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Count = 512
    mask_truncated: bool = False  # a sample cut at max_new_tokens does not learn; its reward still counts in its group
    inner_steps: Count = 1  # optimizer steps on each round
    batch_size: Count = 16  # studies per generation pass
    studies: Count | None = None  # how many training studies; all when absent
    balanced: bool = False  # choose those so that every finding is as frequent among them as can be
    rounds: Count | None = None  # in all; `train.epochs` over the studies when absent
    engine: Engine = InProcess()  # where the samples come from (docs/use/engines.md)

    @field_validator("engine")
    @classmethod
    def _of_this_policy(cls, value: Engine) -> Engine:
        return refuse_endpoint(
            value, "it takes no new weights, so its samples would be off-policy, of the baseline for ever"
        )


class Watch(Section):
    """The validation that picks the weights to keep, by a judge that is not the reward; and when a run has collapsed."""

    judge: str = "chexpert_rule_f1"
    every: Count = 10  # rounds between validations; the first is before any update
    limit: Count | None = 64  # validation studies, one report each
    keep: Literal["best", "last"] = "best"  # weights: of the best validation, or after the last round (an ablation's)
    temperature: Annotated[float, Field(ge=0)] = 0.0  # of those reports; 0: greedy
    patience: Annotated[int, Field(ge=0)] = 0  # validations without a better one before the run stops; 0: never
    length: tuple[Weight, Weight] = (0.3, 2.5)  # words of a sample over those of its reference, mean of a round
    repetition: Share = 0.3  # most: share of 4-grams of words that their report has already had
    distinct: Share = 0.2  # least: share of a round's reports that are unlike all before them
    truncated: Share = 0.5  # most: share of a round's samples that max_new_tokens cuts


OnlineAlgorithm = Grpo | OraPo | Valor | OnlineDpo | OnlineKto
