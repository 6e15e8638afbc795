"""OraPO: (1 − w)·GRPO + w·LN-DPO of the radiologist's report against the group, w from an EMA of the zero-reward rate."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from chexalign import losses
from chexalign.train.online.algorithms.base import GroupBatch, OnlineAlgorithm, always, surrogate, totals


def weigh(study_id: str, rewards: Tensor, memory: dict[str, float], settings: Any) -> float:
    """The prompt's EMA moves by this round's zero-reward rate, then gives w. (K,) scored samples, K may be 0 (unmoved)."""
    before = memory.get(study_id, settings.start)
    if len(rewards):
        before = memory[study_id] = losses.ema(before, losses.zero_reward_rate(rewards), momentum=settings.momentum)
    return losses.oracle_weight(before, w_min=settings.w_min, w_max=settings.w_max, gamma=settings.gamma)


def loss(batch: GroupBatch, settings: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Every sample of the group is a negative, whatever its reward: the paper takes the whole group."""
    assert batch.oracle is not None and batch.oracle.ref_logps is not None, "the task gives both to this algorithm"
    policy, metrics = surrogate(batch, settings)
    logps, known, lengths = totals(batch)
    pull = losses.ln_dpo(
        batch.oracle.logps,
        batch.oracle.ref_logps,
        batch.oracle.lengths,
        logps,
        known,
        lengths,
        beta=settings.oracle_beta,
    ).mean(1)
    w = batch.weights
    metrics |= {"policy_loss": policy.detach(), "oracle_loss": pull.detach(), "oracle_weight": w}
    return (1 - w) * policy + w * pull, metrics


ALGORITHM = OnlineAlgorithm(loss=loss, weigh=weigh, oracle=always, reference=always)
