"""GRPO (Shao et al. 2024), with the settings of Dr.GRPO and GSPO: the shared parts as they are.

With `sft` above 0 the radiologist's report is scored in the same pass, and its mean NLL per token is added with that weight.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from chexalign import losses
from chexalign.train.online.algorithms.base import GroupBatch, OnlineAlgorithm, surrogate


def weigh(study_id: str, rewards: Tensor, memory: dict[str, float], settings: Any) -> float:
    """The report teaches in every group, also where the rewards say nothing."""
    return settings.sft


def loss(batch: GroupBatch, settings: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """(B,) per group: the clipped surrogate, plus weight · mean NLL per token of the radiologist's report with `sft`."""
    values, metrics = surrogate(batch, settings)
    if not settings.sft:
        return values, metrics
    assert batch.oracle is not None, "the task gives the report where `sft` asks for it"
    nll = losses.sft(batch.oracle.logps, batch.oracle.lengths)
    return values + batch.weights * nll, metrics | {"policy_loss": values.detach(), "nll": nll.detach()}


ALGORITHM = OnlineAlgorithm(loss=loss, weigh=weigh, oracle=lambda settings: settings.sft > 0)
