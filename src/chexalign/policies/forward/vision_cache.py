"""The frozen tower's features, computed once per image: while aligning, the tower never changes, so neither do they.

A model is given the stored features through a stand-in for its tower; the projector and all that follows are its own
forward, so nothing of it is written again. On disk a feature lies in a memory-mapped file of its own, named by what the
image's pixels and the tower's weights hash to: runs of one folder share them, and no bound is set by the memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Gemma3Model, Idefics3Model, LlavaModel, Qwen2_5_VLModel, Qwen3VLModel, SmolVLMModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.vision_utils import get_vision_window_index

from chexalign.jsonl import atomic_write
from chexalign.progress import say

FEATURE = "stored_feature_"  # names of the entries in Prefix.extra: the last hidden state, then those of deepstack
GRID_MODELS = (Qwen2_5_VLModel, Qwen3VLModel)  # one `visual` module, which ends in the projector ("merger")
PADDED_MODELS = (Idefics3Model, SmolVLMModel)  # (batch, most images, …) pixels, padding images all zero


def can_store(core: Any) -> bool:
    """True for the families whose features can be handed to the model in place of pixels."""
    return tower_name(core) is not None


def tower_name(core: Any) -> str | None:
    """The attribute of the tower, or None for a model whose features are not stored."""
    if isinstance(core, LlavaModel):  # a list of layers would want several hidden states
        return "vision_tower" if isinstance(core.config.vision_feature_layer, int) else None
    if isinstance(core, Gemma3Model):
        return "vision_tower"
    if isinstance(core, PADDED_MODELS):
        return "vision_model"
    return "visual" if isinstance(core, GRID_MODELS) else None


def tower_features(core: Any, item: dict[str, Tensor]) -> list[Tensor]:
    """One prompt's images through the tower: (images, patches, width), or a flat (patches, width) per grid model."""
    weight = next(core.parameters())
    there = {k: v.to(weight.device) for k, v in item.items()}
    return [f.cpu() for f in _through_tower(core, there | {"pixel_values": there["pixel_values"].to(weight.dtype)})]


def as_inputs(features: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"{FEATURE}{i}": f for i, f in enumerate(features)}


@torch.no_grad()
def _through_tower(core: Any, item: dict[str, Tensor]) -> list[Tensor]:
    pixels = item["pixel_values"]
    if isinstance(core, GRID_MODELS):
        return _grid_features(core, pixels, item["image_grid_thw"])
    if isinstance(core, PADDED_MODELS):
        output = core.get_image_features(pixels, item.get("pixel_attention_mask"), return_dict=True)
        return [output.last_hidden_state]
    output = core.vision_tower(pixels, output_hidden_states=isinstance(core, LlavaModel), return_dict=True)
    layer = core.config.vision_feature_layer if isinstance(core, LlavaModel) else None
    return [output.last_hidden_state if layer is None else output.hidden_states[layer]]


def _grid_features(core: Any, pixels: Tensor, grid: Tensor) -> list[Tensor]:
    """What the mergers of a Qwen-VL tower are given, in the image's own order of patches."""
    visual, seen = core.visual, []
    mergers = [*getattr(visual, "deepstack_merger_list", ()), visual.merger]
    hooks = [m.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for m in mergers]
    try:
        visual(pixels, grid_thw=grid)
    finally:
        for hook in hooks:
            hook.remove()
    *deep, last = seen
    if isinstance(core, Qwen2_5_VLModel):  # its windows shuffle groups of patches
        index, _ = get_vision_window_index(
            grid,
            spatial_merge_size=visual.spatial_merge_size,
            window_size=visual.window_size,
            patch_size=visual.patch_size,
        )
        groups = last.view(len(index), -1, last.shape[-1])
        last = groups[torch.argsort(index)].reshape(last.shape)
    return [last, *deep]


def without_pixels(core: Any, pixels: Tensor) -> Tensor:
    """What is handed to the model in place of pixels: nearly nothing, with the number of images in its shape."""
    if isinstance(core, PADDED_MODELS):
        real = (pixels != 0).flatten(2).any(dim=2)
        patch = core.vision_model.patch_size
        return real.float()[..., None, None, None].expand(-1, -1, 1, patch, patch).clone()
    return pixels.new_zeros(1 if isinstance(core, GRID_MODELS) else len(pixels), 1)


class _EveryLayer(tuple[Tensor, ...]):
    """Hidden states of which any index is the one stored layer."""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(0)


class _StandIn(nn.Module):
    """In the tower's place: returns the features, already computed; a grid tower's mergers are still its own."""

    def __init__(self, tower: Any, features: list[Tensor]):
        super().__init__()
        self._tower, self._features = (tower,), features  # a tuple, so that the tower is not a part of this module

    @property
    def dtype(self) -> torch.dtype:
        return self._tower[0].dtype

    @property
    def spatial_merge_size(self) -> int:
        return self._tower[0].spatial_merge_size

    def forward(self, *_: Any, **__: Any) -> BaseModelOutputWithPooling:
        tower, (last, *deep) = self._tower[0], self._features
        output = BaseModelOutputWithPooling(last_hidden_state=last)
        if hasattr(tower, "merger"):
            output.pooler_output = tower.merger(last)
            mergers = getattr(tower, "deepstack_merger_list", ())
            output.deepstack_features = [m(h) for m, h in zip(mergers, deep, strict=True)]
        else:
            output.hidden_states = _EveryLayer((last,))
        return output


@contextmanager
def stored_features(core: Any, features: list[Tensor]) -> Iterator[None]:
    """Inside, the tower of the model returns `features` whatever it is given."""
    name = tower_name(core)
    assert name is not None
    tower = getattr(core, name)
    setattr(core, name, _StandIn(tower, features))
    try:
        yield
    finally:
        setattr(core, name, tower)


# ---- on disk


def fingerprint(tower: nn.Module, layer: int | None = None) -> str:
    """A hash of a tower's weights and their types, and of the layer that is read where the model may choose one."""
    digest = hashlib.blake2b(str(layer).encode(), digest_size=12)
    for name, value in tower.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class FeatureStore:
    """Features by the pixels they were computed from, in `folder`/<tower>/; nothing is added beyond `limit` bytes.

    Files are written whole and renamed, so that any number of processes can share the folder.
    """

    def __init__(self, folder: Path, core: Any, limit: int):
        self.root, self.core, self.limit, self.told = folder, core, limit, False

    @cached_property
    def folder(self) -> Path:
        """Of this tower; its weights are read when the first image asks, and not again."""
        layer = getattr(self.core.config, "vision_feature_layer", None)
        folder = self.root / fingerprint(getattr(self.core, str(tower_name(self.core))), layer)
        folder.mkdir(parents=True, exist_ok=True)
        self.used = sum(f.stat().st_size for f in self.root.rglob("*.npy"))
        return folder

    def name(self, item: dict[str, Tensor]) -> str:
        """What a prompt's images are called: a hash of their pixels."""
        digest = hashlib.blake2b(digest_size=16)
        for name in ("pixel_values", "image_grid_thw", "pixel_attention_mask"):
            if name in item:
                value = item[name].contiguous()
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def path(self, name: str, part: int) -> Path:
        return self.folder / f"{name}.{part}.npy"

    def get(self, name: str) -> list[Tensor] | None:
        """Memory-mapped tensors, or None where they are not stored. Each holds a file open: let go of them soon."""
        found, dtype = list[Tensor](), next(self.core.parameters()).dtype
        while (path := self.path(name, len(found))).exists():
            try:
                array = torch.from_numpy(np.load(path, mmap_mode="c"))
            except (ValueError, EOFError):  # cut short by a power failure: computed again
                path.unlink(missing_ok=True)
                return None
            found.append(array if array.dtype == dtype else array.view(dtype))
        return found or None

    def put(self, name: str, features: list[Tensor]) -> bool:
        """Keep them; False where the limit does not allow it."""
        size = sum(f.numel() * f.element_size() for f in features)
        if self.used + size > self.limit:
            if not self.told:
                full = f"image features: the {self.limit / 2**30:g} GiB of policy.features_gib are full"
                say(f"{full}; other images are encoded anew each time")
            self.told = True
            return False
        self.used += size
        for part in reversed(range(len(features))):  # the first part last: it makes the others count
            value = features[part]
            plain = value.view(torch.int16) if value.dtype in (torch.bfloat16, torch.float16) else value
            with atomic_write(self.path(name, part), "wb", durable=False) as handle:
                np.save(handle, plain.numpy())
        return True
