"""On-policy DPO: each round's best sample of a group against its worst, the baseline as reference.

CheXalign's pairs made anew from the current policy every round. Source: Guo et al. 2024 (online DPO); best against worst of
a group is CheXalign's rule.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chexalign import losses
from chexalign.train.online.algorithms.base import GroupBatch, OnlineAlgorithm, always, centred, drift, totals


def best_and_worst(batch: GroupBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Index of the best and of the worst sample that may learn, (B,) each, and whether their rewards differ, (B,).

    Ties go to the first of their kind, as in the offline stage.
    """
    out = batch.mask.sum(-1) == 0
    best = batch.advantages.masked_fill(out, -torch.inf).argmax(1)
    worst = batch.advantages.masked_fill(out, torch.inf).argmin(1)
    return best, worst, taken(batch.advantages, best) > taken(batch.advantages, worst)


def taken(values: Tensor, index: Tensor) -> Tensor:
    """(B, G), (B,) → (B,)."""
    return values.gather(1, index[:, None])[:, 0]


def loss(batch: GroupBatch, settings: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """−log σ(β·h + α(|y_c| − |y_r|)) + nll·(mean NLL of the best), summed log-probs; 0 for a group without a pair, (B,)."""
    logps, known, lengths = totals(batch)
    best, worst, paired = best_and_worst(batch)
    (c, r), (ref_c, ref_r), (n_c, n_r) = ([taken(x, i) for i in (best, worst)] for x in (logps, known, lengths))
    values = losses.lc_dpo(c, r, ref_c, ref_r, n_c, n_r, beta=settings.beta, alpha=settings.alpha)
    nll, good, bad = losses.sft(c, n_c), settings.beta * (c - ref_c).detach(), settings.beta * (r - ref_r).detach()
    metrics = {
        **drift(batch),
        "paired": paired.to(c.dtype),
        "chosen_reward": good,
        "rejected_reward": bad,
        "margin": good - bad,
        "accuracy": (good > bad).to(c.dtype),
        "nll": nll.detach(),
    }
    return (values + settings.nll * nll) * paired, metrics


ALGORITHM = OnlineAlgorithm(advantages=centred, loss=loss, reference=always)
