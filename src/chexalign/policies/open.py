"""The policies of a run: the baseline, the aligned one, and the prompts both are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt, build_prompt
from chexalign.records import Study
from chexalign.run import Run
from chexalign.studies import image_root


def open_policy(run: Run, which: str) -> Policy:
    """`baseline` is the warmed-up policy (or the recipe's model itself); `aligned` is what training wrote."""
    settings = run.recipe.policy
    source: str | Path = run.path("policy")
    if which == "baseline":
        source = run.path("baseline") if run.recipe.warmup else settings.model
    policy = Policy.load(
        source, dtype=settings.dtype, download=settings.download, trust_remote_code=settings.trust_remote_code
    )
    policy.reuse_features = True  # outside training nothing changes the tower
    return policy


def prompts_for(run: Run, policy: Policy, studies: Sequence[Study]) -> list[Prompt]:
    """One prompt per study, in order."""
    root, recipe = image_root(run), run.recipe
    return [build_prompt(s, recipe.policy.prompt, policy.processor, root, recipe.studies.max_images) for s in studies]
