"""Algorithms: name → what it needs and its loss. The loop executes them and never asks their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chexalign import losses
from chexalign.recipe.preference import Dpo, Ipo, Kto, LcDpo, Orpo, Sft

Loss = Callable[..., tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Batch:
    """What a loss sees: summed log-probs and lengths in tokens, (B, G); the columns are chosen, rejected, then the free.

    SFT has the chosen column alone. `kl` is KTO's estimate in nats over the micro-batch of all processes, a scalar.
    """

    logps: Tensor
    lengths: Tensor
    ref_logps: Tensor | None
    kl: Tensor | None = None

    def pair(self) -> tuple[Tensor, Tensor]:
        """Summed log-probs of chosen and rejected, (B,) each, in nats."""
        return self.logps[:, 0], self.logps[:, 1]

    def reference(self) -> tuple[Tensor, Tensor]:
        """The same under the frozen reference. Only for algorithms with `needs_reference`."""
        assert self.ref_logps is not None, "the loop gives reference log-probs to every algorithm that needs them"
        return self.ref_logps[:, 0], self.ref_logps[:, 1]


@dataclass(frozen=True)
class Algorithm:
    """What the loop must provide for a loss: reference log-probs, the rejected text, completions for a KL."""

    loss: Loss  # (Batch, settings) → per-example loss (B,), per-example metrics {name: (B,)}
    needs_reference: bool
    uses_rejected: bool = True
    kl_completions: int = (
        0  # completions of another patient per pair, scored without gradient, on which a KL is estimated
    )


def _rewards(batch: Batch, beta: float) -> dict[str, Tensor]:
    """Implicit rewards β·(policy − reference) and what is read off them, all (B,) and detached."""
    (chosen, rejected), (ref_chosen, ref_rejected) = batch.pair(), batch.reference()
    good, bad = beta * (chosen - ref_chosen).detach(), beta * (rejected - ref_rejected).detach()
    return {"chosen_reward": good, "rejected_reward": bad, "margin": good - bad, "accuracy": (good > bad).float()}


def _nll(batch: Batch) -> Tensor:
    """Mean negative log-prob per token of the chosen completion, (B,)."""
    return losses.sft(batch.logps[:, 0], batch.lengths[:, 0])


def _dpo(batch: Batch, settings: Dpo) -> tuple[Tensor, dict[str, Tensor]]:
    loss, nll = losses.dpo(*batch.pair(), *batch.reference(), beta=settings.beta), _nll(batch)
    return loss + settings.nll * nll, {**_rewards(batch, settings.beta), "nll": nll.detach()}


def _lc_dpo(batch: Batch, settings: LcDpo) -> tuple[Tensor, dict[str, Tensor]]:
    lengths = batch.lengths[:, 0], batch.lengths[:, 1]
    loss = losses.lc_dpo(*batch.pair(), *batch.reference(), *lengths, beta=settings.beta, alpha=settings.alpha)
    return loss, _rewards(batch, settings.beta)


def _ipo(batch: Batch, settings: Ipo) -> tuple[Tensor, dict[str, Tensor]]:
    scale = batch.lengths if settings.average_log_prob else batch.lengths.new_ones(batch.lengths.shape)
    policy, reference = batch.logps / scale, Batch(batch.logps, scale, batch.ref_logps).reference()
    ref = reference[0] / scale[:, 0], reference[1] / scale[:, 1]
    return losses.ipo(policy[:, 0], policy[:, 1], *ref, tau=settings.tau), _rewards(batch, 1.0)


def _kto(batch: Batch, settings: Kto) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean of a pair's two examples, so that the mean over pairs is KTO's mean over examples."""
    assert batch.kl is not None, "the task estimates the KL for every algorithm with free completions"
    policy, reference = torch.stack(batch.pair(), 1), torch.stack(batch.reference(), 1)
    values = losses.kto(
        policy,
        reference,
        torch.tensor([True, False], device=policy.device).expand_as(policy),
        batch.kl,
        beta=settings.beta,
        desirable_weight=settings.desirable_weight,
        undesirable_weight=settings.undesirable_weight,
    )
    nll, kl = _nll(batch), batch.kl.expand(len(policy))
    return values.mean(1) + settings.nll * nll, {**_rewards(batch, settings.beta), "kl": kl, "nll": nll.detach()}


def _orpo(batch: Batch, settings: Orpo) -> tuple[Tensor, dict[str, Tensor]]:
    loss = losses.orpo(*batch.pair(), batch.lengths[:, 0], batch.lengths[:, 1], lam=settings.lam)
    mean = (batch.logps / batch.lengths).detach()
    return loss, {"nll": -mean[:, 0], "accuracy": (mean[:, 0] > mean[:, 1]).float()}


def _sft(batch: Batch, settings: Sft) -> tuple[Tensor, dict[str, Tensor]]:
    loss = _nll(batch)
    return loss, {"nll": loss.detach()}


ALGORITHMS: dict[str, Algorithm] = {
    "sft": Algorithm(_sft, needs_reference=False, uses_rejected=False),
    "dpo": Algorithm(_dpo, needs_reference=True),
    "lc_dpo": Algorithm(_lc_dpo, needs_reference=True),
    "ipo": Algorithm(_ipo, needs_reference=True),
    "kto": Algorithm(_kto, needs_reference=True, kl_completions=2),
    "orpo": Algorithm(_orpo, needs_reference=False),
}


def loss_of(settings: Any) -> Algorithm:
    """The algorithm of a recipe's `train.algorithm` section."""
    return ALGORITHMS[settings.type]
