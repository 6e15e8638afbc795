"""The policies of a run: the baseline, the aligned one, and the prompts both are given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from chexalign.errors import RecipeError, WorkError
from chexalign.policies.policy import Policy
from chexalign.policies.presets import Preset, preset_for, wording
from chexalign.policies.prompt import Prompt, build_prompt
from chexalign.policies.checkpoints.smollm2 import checkpoint_of
from chexalign.progress import say
from chexalign.recipe.recipe import PolicySection, Recipe
from chexalign.records import Study
from chexalign.run.folder import Run
from chexalign.stages.studies import image_root


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
    policy.wrap = settings.wrap
    policy.keep_features(run.path("features"), settings.features_gib)  # outside training nothing changes the tower
    return policy


def open_for_training(run: Run, which: str = "baseline") -> Policy:
    """The same in float32; a 16-bit recipe computes in its type and keeps the weights it moves in 32 bits.

    At a learning rate of 1e-6 an update is smaller than the spacing of bfloat16 numbers: 16-bit weights would stay put.
    """
    policy = open_policy(run, which, dtype="float32")
    policy.compute_in(run.recipe.policy.dtype)
    return policy


def load_model(settings: PolicySection, dtype: str | None = None) -> Policy:
    """The recipe's model as it was published, its images no larger than recipe or preset say."""
    policy = Policy.load(
        checkpoint_of(settings.model),
        dtype=dtype or settings.dtype,
        download=settings.download,
        trust_remote_code=settings.trust_remote_code,
    )
    limit_pixels(policy.processor, settings)
    return policy


def limit_pixels(processor: Any, settings: PolicySection) -> None:
    """Lower the pixel budget of a processor that keeps images of any size (Qwen-VL's); it is saved with the policy.

    Raises RecipeError when the recipe asks for a budget and the model's images have one fixed size.
    """
    images: Any = getattr(processor, "image_processor", None)
    size = dict(getattr(images, "size", None) or {})
    budget = settings.max_pixels or (preset_for(settings.model) or Preset("default")).max_pixels
    if not (hasattr(images, "merge_size") and size.get("longest_edge")):
        if settings.max_pixels:
            raise RecipeError(f"policy.max_pixels: the images of {settings.model} have one fixed size")
    elif budget and size["longest_edge"] > budget:
        _say_once(f"images: at most {budget:,} pixels each (the checkpoint allows {size['longest_edge']:,})")
        images.size = {**size, "longest_edge": budget, "shortest_edge": min(size["shortest_edge"], budget)}


def wording_of(recipe: Recipe) -> Preset:
    """What the recipe's model is asked. Raises RecipeError where it is to write an impression from nothing."""
    settings = recipe.policy
    asked = wording(settings.model, settings.prompt, settings.system, recipe.task)
    if recipe.task == "impression" and "{findings}" not in (asked.findings or "") and not recipe.studies.max_images:
        raise RecipeError(
            "task impression: the prompt shows neither the findings nor an image; put {findings} into policy.prompt, or set "
            "studies.max_images"
        )
    return asked


def prompts_for(run: Run, policy: Policy, studies: Sequence[Study]) -> list[Prompt]:
    """One prompt per study, in order."""
    root, recipe = image_root(run), run.recipe
    asked, most = wording_of(recipe), recipe.studies.max_images
    if asked.source:
        _say_once(f"prompt: the published wording of {asked.name} ({asked.source})")
    if asked.max_images is not None and asked.max_images < most:
        _say_once(f"images: {asked.max_images} per study, as {asked.name} is used; studies.max_images is {most}")
    return [build_prompt(s, asked, policy.processor, root, most) for s in studies]


@cache
def _say_once(text: str) -> None:
    say(text)
