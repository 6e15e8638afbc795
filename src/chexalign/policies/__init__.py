"""Policies: checkpoints that write reports and score them."""

from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt, build_prompt

__all__ = ["Policy", "Prompt", "build_prompt"]
