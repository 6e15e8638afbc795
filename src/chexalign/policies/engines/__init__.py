"""Where a policy's samples come from when it is not this process: all engines answer the same call.

Tokens may be an engine's; the log-probs are always those of the policy's own scorer (rescore.py).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chexalign.policies.policy import Policy

ENGINES = {  # name in a recipe → "module:class", made with (policy, the recipe's settings, most images of a prompt)
    "endpoint": "endpoint:Endpoint",
    "vllm": "vllm:Vllm",
}


def attach(policy: Policy, settings: Any, most_images: int) -> None:
    """Let the policy sample where a recipe says. Raises RecipeError when that engine cannot work here."""
    if settings.type != "process":
        module, name = ENGINES[settings.type].split(":")
        make = getattr(import_module(f"chexalign.policies.engines.{module}"), name)
        policy.engine = make(policy, settings, most_images)
