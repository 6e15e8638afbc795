"""On-policy KTO: samples above their group's mean reward are desirable, those below it undesirable.

KTO measures a report's gain against z = β·KL(policy ‖ reference) on its prompt (Ethayarajh et al. 2024). Offline
that KL has to be guessed from mismatched completions, since nothing was drawn from the policy that learns. Here everything
was: the mean log-ratio of a group's own samples estimates it without bias at temperature 1, prompt by prompt, and depends
neither on how a round is cut into micro-batches nor on other studies. # our choice
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from chexalign import losses
from chexalign.train.online.algorithms.base import GroupBatch, OnlineAlgorithm, always, centred, drift, totals

SAME = 1e-9  # a reward this close to its group's mean is at it: neither desirable nor undesirable


def loss(batch: GroupBatch, settings: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over a group's G samples of KTO's value, (B,); one that may not learn or is at the mean counts as 0.

    The KL takes all samples, whether they may learn or not: leaving out the worst would bias it. It has no gradient.
    """
    logps, known, _ = totals(batch)
    kl = (logps - known).detach().mean(1)
    desirable, judged = batch.advantages > 0, batch.advantages.abs() > SAME
    values = losses.kto(
        logps,
        known,
        desirable,
        kl[:, None],
        beta=settings.beta,
        desirable_weight=settings.desirable_weight,
        undesirable_weight=settings.undesirable_weight,
    )
    counted = (judged & (batch.mask.sum(-1) > 0)).to(logps.dtype)
    share = (desirable * counted).sum(1) / counted.sum(1).clamp(min=1)
    return (values * counted).mean(1), {**drift(batch), "report_kl": kl, "desirable": share}


ALGORITHM = OnlineAlgorithm(advantages=centred, loss=loss, reference=always)
