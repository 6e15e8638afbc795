"""Where a policy's samples come from when it is not this process: all engines answer the same call.

Tokens may be an engine's; the log-probs are always those of the policy's own scorer (drawn.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from chexalign.policies.forward.generate import Sampled
from chexalign.policies.prompt import Prompt

if TYPE_CHECKING:
    from chexalign.policies.policy import Policy

ENGINES = {  # name in a recipe → "module:class", made with (policy, the recipe's settings, most images of a prompt)
    "endpoint": "endpoint:Endpoint",
    "vllm": "vllm:Vllm",
}


class Engine(Protocol):
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


def attach(policy: Policy, settings: Any, most_images: int) -> None:
    """Let the policy sample where a recipe says. Raises RecipeError when that engine cannot work here."""
    if settings.type != "process":
        module, name = ENGINES[settings.type].split(":")
        make = getattr(import_module(f"chexalign.policies.engines.{module}"), name)
        policy.engine = make(policy, settings, most_images)
