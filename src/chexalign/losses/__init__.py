"""The maths, as pure functions: tensors and floats in, per-example values out."""

from chexalign.losses.advantages import centre, group_normalise, rank_normalise, zero_reward_rate
from chexalign.losses.oracle import ema, ln_dpo, oracle_weight
from chexalign.losses.policy_gradient import clipped_surrogate, kl_k3, mean_over_tokens, sequence_log_ratio
from chexalign.losses.preference import dpo, ipo, kto, lc_dpo, log_ratio_margin, orpo, sft

__all__ = [
    "centre",
    "clipped_surrogate",
    "dpo",
    "ema",
    "group_normalise",
    "ipo",
    "kl_k3",
    "kto",
    "lc_dpo",
    "ln_dpo",
    "log_ratio_margin",
    "mean_over_tokens",
    "oracle_weight",
    "orpo",
    "rank_normalise",
    "sequence_log_ratio",
    "sft",
    "zero_reward_rate",
]
