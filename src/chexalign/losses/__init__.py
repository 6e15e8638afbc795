"""The maths, as pure functions: tensors and floats in, per-example values out."""

from chexalign.losses.advantages import group_normalise, rank_normalise, zero_reward_rate
from chexalign.losses.oracle import oracle_weight
from chexalign.losses.policy_gradient import clipped_surrogate, kl_k3
from chexalign.losses.preference import dpo, ipo, kto, lc_dpo, log_ratio_margin, orpo, sft

__all__ = [
    "clipped_surrogate",
    "dpo",
    "group_normalise",
    "ipo",
    "kl_k3",
    "kto",
    "lc_dpo",
    "log_ratio_margin",
    "oracle_weight",
    "orpo",
    "rank_normalise",
    "sft",
    "zero_reward_rate",
]
