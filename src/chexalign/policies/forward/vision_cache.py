"""A frozen tower's features on the disk, computed once per image.

Each lies in a memory-mapped file of its own, named by what the image's pixels and the tower's weights hash to: runs of one
folder share them, and no bound is set by the memory.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chexalign.jsonl import atomic_write
from chexalign.policies.forward.tower_features import PIXELS, tower_name
from chexalign.progress import say

CHOICES = ("vision_feature_layer", "vision_feature_select_strategy")  # of a configuration: what the projector reads


PROJECTORS = ("merger.", "deepstack_merger_list.")  # inside Qwen-VL's tower: what is stored is what they read


def fingerprint(tower: nn.Module, read: str = "", dtype: torch.dtype | None = None) -> str:
    """A hash of a tower's weights and types, without its projectors, and of what the settings let these `read` of it.

    Of the weights as `dtype` holds them where it is given: a bf16 run samples with them so and trains them in fp32.
    """
    digest = hashlib.blake2b(read.encode(), digest_size=12)
    for name, value in tower.state_dict().items():
        if name.startswith(PROJECTORS):
            continue
        value = value if dtype is None or not value.is_floating_point() else value.to(dtype)
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class FeatureStore:
    """Features by the pixels they were computed from, in `folder`/<tower>/; nothing is added beyond `limit` bytes.

    Files are written whole and renamed, so that any number of processes can share the folder.
    """

    def __init__(self, folder: Path, core: Any, limit: int, dtype: torch.dtype | None = None):
        """`dtype` is what they are stored in, the type of the model's weights when absent; a file's name tells it."""
        self.root = folder
        self.core = core
        self.limit = limit
        self.warned = False
        self.dtype = dtype or self.handed

    @property
    def handed(self) -> torch.dtype:
        """The type in which the model takes them: that of its weights."""
        return next(self.core.parameters()).dtype

    @cached_property
    def folder(self) -> Path:
        """Of this tower; its weights are read when the first image asks, and not again."""
        chosen = [getattr(self.core.config, name, None) for name in CHOICES]
        folder = self.root / fingerprint(
            getattr(self.core, str(tower_name(self.core))), f"projector {chosen}", self.dtype
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.used = sum(f.stat().st_size for f in self.root.rglob("*.npy"))
        return folder

    def name(self, item: dict[str, Tensor]) -> str:
        """What a prompt's images are called: a hash of their pixels."""
        digest = hashlib.blake2b(digest_size=16)
        for name in PIXELS:
            if name in item:
                value = item[name].contiguous()
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def path(self, name: str, part: int) -> Path:
        """The file of one part (projector input, then deepstack levels) in the stored type, which stands in its name."""
        return self.folder / f"{name}.{part}.{str(self.dtype).removeprefix('torch.')}.npy"

    def rounded(self, features: list[Tensor]) -> list[Tensor]:
        """As they come back once they are stored, so that the first use equals the later ones."""
        return [f.to(self.dtype).to(self.handed) for f in features]

    def get(self, name: str) -> list[Tensor] | None:
        """Tensors in the model's type, or None where they are not stored.

        Memory-mapped where that is the stored type: each then holds a file open, so let go of them soon.
        """
        found = list[Tensor]()
        while (path := self.path(name, len(found))).exists():
            try:
                array = torch.from_numpy(np.load(path, mmap_mode="c"))
            except (ValueError, EOFError):  # cut short by a power failure: computed again
                path.unlink(missing_ok=True)
                return None
            found.append((array if array.dtype == self.dtype else array.view(self.dtype)).to(self.handed))
        return found or None

    def put(self, name: str, features: list[Tensor]) -> bool:
        """Keep them; False where the limit does not allow it."""
        size = sum(f.numel() for f in features) * self.dtype.itemsize
        if self.used + size > self.limit:
            if not self.warned:
                full = f"image features: the {self.limit / 2**30:g} GiB of policy.features_gib are full"
                say(f"{full}; other images are encoded anew each time")
            self.warned = True
            return False
        self.used += size
        for part in reversed(range(len(features))):  # the first part last: it makes the others count
            value = features[part].to(self.dtype)
            plain = value.view(torch.int16) if value.dtype in (torch.bfloat16, torch.float16) else value
            with atomic_write(self.path(name, part), "wb", durable=False) as handle:
                np.save(handle, plain.numpy())
        return True
