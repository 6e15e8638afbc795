"""What a frozen tower gives for an image, and how the model is handed it again: while aligning, the tower never changes.

A feature is what the model's projector reads. It is caught on the way of the model's own `get_image_features`, and goes
back as `mm_encoder_outputs`, the public argument of `forward` for what an encoder gave; between the two stands the
projector, which may learn. The names of the projectors and the order of Qwen2.5-VL's windows are transformers' internals:
tested on 5.23 and 5.24, and compared with the model's own forward before a run relies on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Gemma3Model, Idefics3Model, LlavaModel, Qwen2_5_VLModel, Qwen3VLModel, SmolVLMModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.vision_utils import get_vision_window_index

FEATURE = "stored_feature_"  # names of the entries in Prefix.extra: what the projector reads, then those of deepstack
PIXELS = ("pixel_values", "image_grid_thw", "pixel_attention_mask")  # what the families' `get_image_features` take
NOT_KEPT = ("pixel_values", "pixel_attention_mask")  # of a prompt whose features are stored
GRID_MODELS = (Qwen2_5_VLModel, Qwen3VLModel)  # one `visual` module, which ends in the projector ("merger")
TILED_MODELS = (Idefics3Model, SmolVLMModel)


def can_store(core: Any) -> bool:
    """True for the families whose features can be handed to the model in place of pixels."""
    return tower_name(core) is not None


def tower_name(core: Any) -> str | None:
    """The attribute of the tower, or None for a model whose features are not stored."""
    if isinstance(core, (LlavaModel, Gemma3Model)):
        return "vision_tower"
    if isinstance(core, TILED_MODELS):
        return "vision_model"
    return "visual" if isinstance(core, GRID_MODELS) else None


def projectors(core: Any) -> list[nn.Module]:
    """The modules that read the tower's features, the main one first."""
    if isinstance(core, GRID_MODELS):
        return [core.visual.merger, *getattr(core.visual, "deepstack_merger_list", ())]
    return [core.connector if isinstance(core, TILED_MODELS) else core.multi_modal_projector]


@torch.no_grad()
def tower_features(core: Any, item: dict[str, Tensor]) -> list[Tensor]:
    """One prompt's images through the tower: (images, patches, width), or a flat (patches, width) per grid model."""
    weight = next(core.parameters())
    there = {k: item[k].to(weight.device) for k in PIXELS if k in item}
    there["pixel_values"] = there["pixel_values"].to(weight.dtype)
    seen: dict[int, Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, place=place: seen.update({place: inputs[0]}))
        for place, module in enumerate(projectors(core))
    ]
    try:
        core.get_image_features(**there, return_dict=True)
    finally:
        for hook in hooks:
            hook.remove()
    features = [seen[place] for place in range(len(hooks))]
    if isinstance(core, Qwen2_5_VLModel):
        features[0] = _out_of_windows(core.visual, features[0], there["image_grid_thw"])
    return [f.cpu() for f in features]


def _out_of_windows(visual: Any, patches: Tensor, grid: Tensor) -> Tensor:
    """Groups of patches in the image's own order, as Qwen2.5-VL's tower orders them after its merger."""
    index, _ = get_vision_window_index(
        grid,
        spatial_merge_size=visual.spatial_merge_size,
        window_size=visual.window_size,
        patch_size=visual.patch_size,
    )
    return patches.view(len(index), -1, patches.shape[-1])[torch.argsort(index)].reshape(patches.shape)


def as_inputs(features: Sequence[Tensor]) -> dict[str, Tensor]:
    """Names under which features travel in `Prefix.extra`; the order is the tower's."""
    return {f"{FEATURE}{i}": f for i, f in enumerate(features)}


def with_encoder_outputs(core: Any, extra: dict[str, Tensor]) -> dict[str, Any]:
    """A forward's arguments: stored features go through the projector and become `mm_encoder_outputs`; the rest stays."""
    features = [v for k, v in extra.items() if k.startswith(FEATURE)]
    if not features:
        return dict(extra)
    rest: dict[str, Any] = {k: v for k, v in extra.items() if not k.startswith(FEATURE)}
    return rest | {"mm_encoder_outputs": {"image": _encoder_output(core, features, rest.get("image_grid_thw"))}}


def _encoder_output(core: Any, features: Sequence[Tensor], grid: Tensor | None) -> BaseModelOutputWithPooling:
    """What the model's `get_image_features` gives for these features."""
    first, *deep = (module(f) for module, f in zip(projectors(core), features, strict=True))
    if isinstance(core, (Gemma3Model, *TILED_MODELS)):  # take the images as one tensor
        return BaseModelOutputWithPooling(last_hidden_state=features[0], pooler_output=first)
    if grid is None:
        return BaseModelOutputWithPooling(last_hidden_state=features[0], pooler_output=list(first))  # type: ignore[arg-type]
    sizes = (grid.prod(-1) // core.visual.spatial_merge_size**2).tolist()
    output = BaseModelOutputWithPooling(last_hidden_state=features[0], pooler_output=first.split(sizes))
    output.deepstack_features = [x.split(sizes) for x in deep]
    return output
