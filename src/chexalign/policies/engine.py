"""What every engine answers: samples for prompts, and new weights when the policy has learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chexalign.policies.forward.generate import Sampled
from chexalign.policies.prompt import Prompt


class Engine(Protocol):
    """The role of every sampler. `seeds` has one number per prompt: the same seeds repeat a sample where `generate` can."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seeds: Sequence[int],
    ) -> list[list[Sampled]]:
        """n completions for each prompt. Raises WorkError when one cannot be had."""

    def push(self) -> None:
        """Give the engine the policy's weights as they are now."""
