"""The policies of a run: the baseline, the aligned one, and the prompts both are given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from chexalign.errors import WorkError
from chexalign.policies.model_of_recipe import limit_pixels, load_model
from chexalign.policies.policy import Policy
from chexalign.policies.presets import cleaning_of, wording_of
from chexalign.policies.prompt import Prompt, build_prompt
from chexalign.progress import say_once
from chexalign.records import Study
from chexalign.run.folder import Run
from chexalign.run.proof import prove
from chexalign.run.studies import image_root


def open_policy(run: Run, which: str, dtype: str | None = None) -> Policy:
    """`baseline` is the warmed-up policy (or the recipe's model itself), `aligned` what training wrote, `stage_1` what
    the first stage of an online algorithm left, and `untuned` the recipe's model itself."""
    settings = run.recipe.policy
    if which == "untuned" or (which == "baseline" and not run.recipe.warmup):
        policy = load_model(settings, dtype)
    else:
        name = {"baseline": "baseline", "aligned": "policy"}.get(which, f"stages/{which}")
        folder, stage = run.path(name), "warmup" if which == "baseline" else "train"
        if not (folder / "config.json").is_file():
            raise WorkError(f"{folder} is missing; run the stage that writes it first: {stage}")
        trusted = settings.trust_remote_code
        policy = Policy.load(folder, dtype=dtype or settings.dtype, trust_remote_code=trusted)
        limit_pixels(policy.processor, settings)  # an adapter's processor is its base's
    policy.wrap, policy.chat = settings.wrap, wording_of(run.recipe).chat
    policy.clean = cleaning_of(settings)
    prove(run, policy, partial(prompts_for, run, policy))
    # outside training nothing changes the tower; one copy, in the type that the run computes in
    policy.keep_features(run.path("features"), settings.features_gib, settings.dtype)
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
    asked, most = wording_of(recipe), recipe.studies.max_images
    if asked.source:
        say_once(f"prompt: the published wording of {asked.name} ({asked.source})")
    if (own := asked.most_images(most)) < most:
        say_once(f"images: {own} per study, as {asked.name} is used; studies.max_images is {most}")
    return [build_prompt(s, asked, policy.processor, root, most) for s in studies]
