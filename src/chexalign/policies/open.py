"""The policies of a run: the baseline, the aligned one, and the prompts both are given."""

from __future__ import annotations

from collections.abc import Sequence

from chexalign.errors import WorkError
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt, build_prompt
from chexalign.records import Study
from chexalign.run import Run
from chexalign.studies import image_root


def open_policy(run: Run, which: str, dtype: str | None = None) -> Policy:
    """`baseline` is the warmed-up policy (or the recipe's model itself); `aligned` is what training wrote."""
    settings = run.recipe.policy
    if which == "baseline" and not run.recipe.warmup:
        policy = Policy.load(
            settings.model,
            dtype=dtype or settings.dtype,
            download=settings.download,
            trust_remote_code=settings.trust_remote_code,
        )
    else:
        folder, stage = (run.path("baseline"), "warmup") if which == "baseline" else (run.path("policy"), "train")
        if not (folder / "config.json").is_file():
            raise WorkError(f"{folder} is missing; run the stage that writes it first: {stage}")
        trusted = settings.trust_remote_code
        policy = Policy.load(folder, dtype=dtype or settings.dtype, trust_remote_code=trusted)
    policy.reuse_features = True  # outside training nothing changes the tower
    return policy


def open_for_training(run: Run, which: str = "baseline") -> Policy:
    """The same in float32; a 16-bit recipe computes in its type and keeps the weights it moves in 32 bits.

    At a learning rate of 1e-6 an update is smaller than the spacing of bfloat16 numbers: 16-bit weights would stay put.
    """
    policy = open_policy(run, which, dtype="float32")
    policy.compute_in(run.recipe.policy.dtype)
    return policy


def prompts_for(run: Run, policy: Policy, studies: Sequence[Study]) -> list[Prompt]:
    """One prompt per study, in order."""
    root, recipe = image_root(run), run.recipe
    return [build_prompt(s, recipe.policy.prompt, policy.processor, root, recipe.studies.max_images) for s in studies]
