"""Open the model that a recipe names, as it was published."""

from __future__ import annotations

from typing import Any

from chexalign.errors import RecipeError
from chexalign.policies.checkpoints.smollm2 import checkpoint_of
from chexalign.policies.policy import Policy
from chexalign.policies.presets import Preset, preset_for
from chexalign.progress import say_once
from chexalign.recipe.policy import PolicySection


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
        say_once(f"images: at most {budget:,} pixels each (the checkpoint allows {size['longest_edge']:,})")
        images.size = {**size, "longest_edge": budget, "shortest_edge": min(size["shortest_edge"], budget)}
