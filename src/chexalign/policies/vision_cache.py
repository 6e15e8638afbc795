"""The frozen tower's features, computed once per image: while aligning, the tower never changes, so neither do they.

A LLaVA-style model is given the stored features in place of pixels, and a stand-in tower that hands them on: the
model's own forward does the rest, so nothing of it is written again. Other families run their tower every time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlavaModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


class _EveryLayer(tuple[Tensor, ...]):
    """Hidden states of which any index is the one stored layer."""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(0)


class _StandIn(nn.Module):
    """A tower that returns what it is given: the features, already computed."""

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(
            last_hidden_state=pixel_values,
            hidden_states=_EveryLayer((pixel_values,)),
        )


def can_cache(core: nn.Module) -> bool:
    """True for models whose features come from one tower pass per image and one hidden layer (LLaVA's shape)."""
    layer = getattr(getattr(core, "config", None), "vision_feature_layer", None)
    return isinstance(core, LlavaModel) and isinstance(layer, int)


@torch.no_grad()
def tower_features(core: Any, pixel_values: Tensor) -> Tensor:
    """(n_images, 3, H, W) → (n_images, n_patches, width): the hidden layer that the projector reads."""
    output = core.vision_tower(pixel_values, output_hidden_states=True, return_dict=True)
    return output.hidden_states[core.config.vision_feature_layer]


@contextmanager
def stored_features(core: Any) -> Iterator[None]:
    """Inside, `pixel_values` given to the model are tower features."""
    tower = core.vision_tower
    core.vision_tower = _StandIn()
    try:
        yield
    finally:
        core.vision_tower = tower
