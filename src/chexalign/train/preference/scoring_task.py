"""The task of every text loss: score completions with the shared prefix, hand log-probs to an algorithm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from chexalign.errors import WorkError
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt
from chexalign.train.preference.algorithms import Batch, loss_of

# Nats per completion token by which policy and reference may differ before any update. In 16-bit, rounding depends on
# what else is in the batch: .03 was seen on a random 8-layer model.
STEP_0_TOLERANCE = 2e-3
STEP_0_TOLERANCE_16_BIT = 0.1
ONE_TOKEN_16_BIT = 0.3  # nats beside those, whatever the length: an end-of-text alone moved by .15; our choice


@dataclass(frozen=True)
class Example:
    """One prompt with its completions: chosen, rejected, and those of another patient where the algorithm wants them.

    All examples of a run bring the same number. `ref_logps` has one value per completion where a reference is needed;
    None is one not known yet. `weight` multiplies the example's loss; the mean over a step is still over its examples.
    """

    prompt: Prompt
    completions: tuple[tuple[int, ...], ...]
    ref_logps: tuple[float | None, ...] = ()
    weight: float = 1.0


class ScoringTask:
    """SFT on reports and every preference loss: `settings` is a recipe's `train.algorithm` section."""

    def __init__(self, policy: Policy, settings: Any):
        self.policy = policy
        self.settings = settings
        self.module: nn.Module = policy.scorer
        self.algorithm = loss_of(settings)
        self.gather: Callable[[Tensor], Tensor] = _alone  # rows of all processes; the trainer sets it
        self.count_prefix = False  # whether `size` counts the prompt's tokens: it costs an encoding of each prompt
        self._prefix_tokens: dict[Prompt, int] = {}

    def inputs(self, items: Sequence[Example]) -> tuple[Any, ...]:
        """B prompts, ids and mask of all their completions in order, and how many of them serve a KL alone."""
        ids, mask = self.policy.pad_completions([tokens for e in items for tokens in e.completions])
        return self.policy.encode([e.prompt for e in items]), ids, mask, self.algorithm.kl_completions

    def batch(self, token_logps: Tensor, items: Sequence[Example]) -> Batch:
        """(B·G, T) token log-probs → summed log-probs (B, G) with their lengths and reference."""
        lengths = token_logps.new_tensor([[len(t) for t in e.completions] for e in items])
        reference = None
        if self.algorithm.needs_reference:
            reference = token_logps.new_tensor([e.ref_logps for e in items])
        return Batch(token_logps.sum(1).view(len(items), -1), lengths, reference)

    def loss(
        self, output: Tensor, items: Sequence[Example], weights: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Per-example values and metrics, (B,). A row of weight 0 only fills a process's batch up and moves no other row."""
        batch = self.batch(output, items)
        if self.algorithm.kl_completions:
            batch = replace(batch, kl=self._kl(batch, output.new_ones(len(items)) if weights is None else weights))
        values, metrics = self.algorithm.loss(batch, self.settings)
        return values * values.new_tensor([e.weight for e in items]), metrics

    def _kl(self, batch: Batch, weights: Tensor) -> Tensor:
        """Mean log π − log π_ref of the free completions, over the micro-batch of all processes: a scalar, no gradient."""
        assert batch.ref_logps is not None
        ratios = (batch.logps - batch.ref_logps)[:, -self.algorithm.kl_completions :].detach()
        sums = torch.stack([(ratios.mean(1) * weights).sum(), weights.sum()])
        total, count = self.gather(sums[None]).sum(0)
        return total / count

    def size(self, item: Example) -> int:
        """Tokens in a forward pass: of the completions, padded to the longest, and of the prompt with `count_prefix`."""
        own = len(item.completions) * max(map(len, item.completions))
        if not self.count_prefix:
            return own
        if item.prompt not in self._prefix_tokens:
            self._prefix_tokens[item.prompt] = self.policy.encode([item.prompt]).ids.shape[1]
        return own + self._prefix_tokens[item.prompt]

    def check_first(self, output: Tensor, items: Sequence[Example]) -> None:
        """Before any update the policy is the reference, so each stored log-prob must be the one just computed."""
        if not self.algorithm.needs_reference:
            return
        batch = self.batch(output.detach(), items)
        assert batch.ref_logps is not None
        differ = (batch.logps - batch.ref_logps).abs()
        gap = float((differ / batch.lengths).max())
        exact = self.policy.scorer.compute_dtype is None
        if not bool((differ <= step_0_bound(batch.lengths, exact)).all()):  # so that a NaN is seen too
            raise WorkError(
                f"step-0 margins are not zero: policy and reference differ by {gap:.4f} nats per token. The pairs were "
                "sampled from another policy, prompt or image size (delete completions.jsonl and what follows it), or "
                "reference_logps.jsonl was computed with another (delete it)"
            )


def step_0_bound(lengths: Tensor, exact: bool) -> Tensor:
    """By how much a completion's two log-probs may differ, in nats: (B, G) lengths in tokens → (B, G).

    In 32 bits a token's error is a constant share. In 16 bits a completion's errors are partly independent, so that a short
    one is allowed more per token: a constant for one token's logits, and a share per token on top.
    """
    return STEP_0_TOLERANCE * lengths if exact else ONE_TOKEN_16_BIT + STEP_0_TOLERANCE_16_BIT * lengths


def _alone(rows: Tensor) -> Tensor:
    return rows
