"""Rewards of one group → advantages of one group. Pure functions on shape (G,)."""

from __future__ import annotations

import torch
from torch import Tensor


def group_normalise(rewards: Tensor, *, eps: float) -> Tensor:
    """(r − mean) / (sd + ε), (G,) → (G,): zero mean, unit sd (the sample sd, as in TRL's `scale_rewards="group"`).

    A constant group, and so a group of one, gives zeros. Source: GRPO, Shao et al. 2024; used by OraPO.

    >>> group_normalise(torch.tensor([0.0, 1.0, 2.0]), eps=0.0)
    tensor([-1.,  0.,  1.])
    >>> group_normalise(torch.tensor([0.5, 0.5]), eps=1e-4)
    tensor([0., 0.])
    """
    if bool((rewards == rewards[0]).all()):
        return torch.zeros_like(rewards)
    return (rewards - rewards.mean()) / (rewards.std() + eps)


def centre(rewards: Tensor) -> Tensor:
    """r − mean, (G,) → (G,): not divided by the spread (Dr.GRPO, Liu et al. 2025; TRL's `scale_rewards="none"`).

    A constant group gives exact zeros.
    """
    if bool((rewards == rewards[0]).all()):
        return torch.zeros_like(rewards)
    return rewards - rewards.mean()


def rank_normalise(rewards: Tensor) -> Tensor:
    """Ranks scaled to zero mean and unit sd, (G,) → (G,). Ties share their mean rank; a constant group gives zeros.

    Source: VALOR's rank-normalised advantages; how the ranks are scaled is not printed there. # our choice
    """
    below = (rewards[:, None] > rewards[None, :]).sum(1)
    tied = (rewards[:, None] == rewards[None, :]).sum(1)
    return group_normalise((below + (tied + 1) / 2).to(rewards.dtype), eps=0.0)


def zero_reward_rate(rewards: Tensor) -> float:
    """1.0 if every reward of the group is exactly zero, else 0.0. (G,) → float. Source: OraPO."""
    return 1.0 if bool((rewards == 0).all()) else 0.0
