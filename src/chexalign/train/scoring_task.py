"""The task of every text loss: score completions with the shared prefix, hand log-probs to an algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from chexalign.errors import WorkError
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt
from chexalign.train.algorithms import Batch, loss_of

STEP_0_TOLERANCE = 2e-3  # nats per completion token by which policy and reference may differ before any update (fp32)


@dataclass(frozen=True)
class Example:
    """One prompt with the completions it is trained on (all examples of a run bring the same number)."""

    prompt: Prompt
    completions: tuple[tuple[int, ...], ...]
    ref_logps: tuple[float, ...] | None = None


class ScoringTask:
    """SFT on reports and every preference loss: `settings` is a recipe's `train.algorithm` section."""

    def __init__(self, policy: Policy, settings: Any):
        self.policy, self.settings = policy, settings
        self.module: nn.Module = policy.scorer
        self.algorithm = loss_of(settings)

    def inputs(self, items: Sequence[Example]) -> tuple[Any, ...]:
        ids, mask = self.policy.pad_completions([tokens for e in items for tokens in e.completions])
        return self.policy.encode([e.prompt for e in items]), ids, mask

    def batch(self, token_logps: Tensor, items: Sequence[Example]) -> Batch:
        """(B·G, T) token log-probs → summed log-probs (B, G) with their lengths and reference."""
        lengths = token_logps.new_tensor([[len(t) for t in e.completions] for e in items])
        reference = None
        if self.algorithm.needs_reference:
            reference = token_logps.new_tensor([e.ref_logps for e in items])
        return Batch(token_logps.sum(1).view(len(items), -1), lengths, reference)

    def loss(self, output: Tensor, items: Sequence[Example]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.algorithm.loss(self.batch(output, items), self.settings)

    def size(self, item: Example) -> int:
        return max(map(len, item.completions))

    def check_first(self, output: Tensor, items: Sequence[Example]) -> None:
        """Before any update the policy is the reference, so each stored log-prob must be the one just computed."""
        if not self.algorithm.needs_reference:
            return
        batch = self.batch(output.detach(), items)
        assert batch.ref_logps is not None
        gap = float(((batch.logps - batch.ref_logps).abs() / batch.lengths).max())
        if gap > STEP_0_TOLERANCE:
            raise WorkError(
                f"step-0 margins are not zero: policy and reference differ by {gap:.4f} nats per token. The pairs were "
                "sampled from another policy, prompt or image size; delete completions.jsonl and what follows it"
            )
