"""What an online algorithm is, and the parts that they share: rewards → advantages → loss, each a function of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chexalign import losses
from chexalign.recipe.train import Train


@dataclass(frozen=True)
class Oracle:
    """The radiologist's report of each group: summed log-probs and lengths in tokens, all (B,)."""

    logps: Tensor
    ref_logps: Tensor | None
    lengths: Tensor


@dataclass(frozen=True)
class GroupBatch:
    """What a loss sees of B groups of G samples: log-probs per token, (B, G, T), in nats; `mask` is 1 on what learns.

    A sample that the judge abstained on, and a truncated one where the recipe says so, has no 1 in `mask`.
    """

    logps: Tensor
    old_logps: Tensor
    ref_logps: Tensor | None
    mask: Tensor
    tokens: Tensor  # (B, G, T), 1 on a sample's tokens, whether it learns or not
    advantages: Tensor  # (B, G)
    weights: Tensor  # (B,): what `weigh` said of each group
    max_tokens: int
    oracle: Oracle | None = None


@dataclass(frozen=True)
class OnlineStage:
    """A part of the run with one reward and one choice of what learns. It also ends after `patience` validations (0: no)."""

    reward: str
    rounds: int
    freeze: tuple[str, ...]
    patience: int


def one_stage(train: Train, rounds: int) -> list[OnlineStage]:
    """The whole run as one stage, for algorithms that do not change reward or modules on the way."""
    assert train.reward is not None
    return [OnlineStage(train.reward, rounds, train.freeze, train.watch.patience)]


def no_weight(study_id: str, rewards: Tensor, memory: dict[str, float], settings: Any) -> float:
    """For `weigh`: no report of the radiologist is mixed into the loss."""
    return 0.0


def always(settings: Any) -> bool:
    """For `oracle` and `reference`: whatever the settings."""
    return True


def never(settings: Any) -> bool:
    """For `oracle` and `reference`: whatever the settings."""
    return False


def with_kl(settings: Any) -> bool:
    """For `reference`: the baseline is scored only where a KL to it is paid."""
    return settings.kl > 0


def centred(rewards: Tensor, settings: Any) -> Tensor:
    """r − mean of one group's scored samples, (K,) → (K,): for losses that ask only who is better."""
    return losses.centre(rewards)


def totals(batch: GroupBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs of whole samples by policy and reference, summed over tokens, and lengths in tokens: (B, G) each."""
    assert batch.ref_logps is not None, "the task gives reference log-probs to every algorithm that says it needs them"
    lengths = batch.tokens.sum(-1).clamp(min=1)
    return (batch.logps * batch.tokens).sum(-1), (batch.ref_logps * batch.tokens).sum(-1), lengths


def drift(batch: GroupBatch) -> dict[str, Tensor]:
    """`kl` as GRPO logs it: k3 against the baseline, mean over each group's learning tokens, (B,); for the log alone."""
    assert batch.ref_logps is not None
    return {"kl": _group_mean(losses.kl_k3(batch.logps.detach(), batch.ref_logps), batch.mask, len(batch.logps))}


def advantages(rewards: Tensor, settings: Any) -> Tensor:
    """Advantages of one group's scored samples, (K,) → (K,), by `settings.scale`."""
    if settings.scale == "rank":
        return losses.rank_normalise(rewards)
    return losses.centre(rewards) if settings.scale == "none" else losses.group_normalise(rewards, eps=settings.eps)


def surrogate(batch: GroupBatch, settings: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate + kl·k3, the mean over each group's samples: (B,), with per-group metrics.

    A sample without weight in `mask` counts as 0 in that mean, as in TRL, so that its group weighs less.
    """
    (groups, samples, length), ratio_of = batch.logps.shape, batch.logps
    new, old, mask = (x.flatten(0, 1) for x in (batch.logps, batch.old_logps, batch.mask))
    if settings.ratio == "sequence":
        ratio_of = losses.sequence_log_ratio(new, old, mask)[:, None].expand(-1, length)
        old = torch.zeros_like(old)
    else:
        ratio_of = new
    flat = batch.advantages.flatten()
    values = losses.clipped_surrogate(ratio_of, old, flat, mask, clip_eps=settings.clip_eps)
    metrics = {"clip_share": _clipped(ratio_of - old, flat, settings.clip_eps)}
    if settings.kl:
        assert batch.ref_logps is not None, "the task gives reference log-probs wherever there is a KL"
        metrics["kl"] = losses.kl_k3(new, batch.ref_logps.flatten(0, 1))
        values = values + settings.kl * metrics["kl"]
    constant = batch.max_tokens if settings.average == "constant" else None
    value = losses.mean_over_tokens(values, mask, constant=constant).view(groups, samples).mean(1)
    return value, {n: _group_mean(m.detach(), mask, groups) for n, m in metrics.items()}


def _clipped(log_ratio: Tensor, gain: Tensor, clip_eps: float) -> Tensor:
    """1 on tokens whose ratio is beyond the range on the side where the surrogate is flat, (N, T)."""
    ratio, up = log_ratio.exp(), gain[:, None] > 0
    return ((ratio > 1 + clip_eps) & up | (ratio < 1 - clip_eps) & (gain[:, None] < 0)).to(log_ratio.dtype)


def _group_mean(values: Tensor, mask: Tensor, groups: int) -> Tensor:
    """Mean over the learning tokens of each group, (B·G, T) → (B,)."""
    return losses.mean_over_tokens(values.view(groups, -1), mask.view(groups, -1))


@dataclass(frozen=True)
class OnlineAlgorithm:
    """`weigh` is told every group's rewards once a round and may remember a number per study in its `memory`."""

    advantages: Callable[[Tensor, Any], Tensor] = advantages
    loss: Callable[[GroupBatch, Any], tuple[Tensor, dict[str, Tensor]]] = surrogate
    stages: Callable[[Train, int], Sequence[OnlineStage]] = one_stage
    weigh: Callable[[str, Tensor, dict[str, float], Any], float] = no_weight
    oracle: Callable[[Any], bool] = never  # whether the radiologist's report is scored beside the samples
    reference: Callable[[Any], bool] = with_kl  # whether the loss wants the frozen baseline's log-probs
