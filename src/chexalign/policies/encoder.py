"""Prompts → what the model is fed. Where the tower never changes, each image goes through it once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chexalign.data.images import load_image
from chexalign.errors import RecipeError, WorkError
from chexalign.policies.forward.logps import Prefix
from chexalign.policies.forward.padding import left_padded
from chexalign.policies.forward.tower_features import NOT_KEPT, as_inputs, can_store, tower_features
from chexalign.policies.forward.vision_cache import FeatureStore
from chexalign.policies.prompt import Prompt

# what processors raise at an image or a number of images that they do not take
REFUSALS = (ValueError, TypeError, RuntimeError, LookupError, AttributeError, ArithmeticError)


class PromptEncoder:
    """A processor with a memory: token ids of prompts, and pixels or the tower's stored features of their images."""

    def __init__(self, processor: Any):
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.reuse_features = False
        self.never_reuse = False
        self._store: FeatureStore | None = None  # where features lie on the disk
        # prompts whose features are stored, and the name of those on the disk (None: they are in the entry)
        self._encoded: dict[tuple[Path, str], tuple[dict[str, Tensor], str | None]] = {}

    def __call__(self, core: Any, prompts: Sequence[Prompt]) -> Prefix:
        """A left-padded batch on the CPU, (B, P). `core` is the model without its head, whose tower is asked.

        Raises ImageError where an image cannot be read.
        """
        cached = self.reuse_features and not self.never_reuse and can_store(core)
        items = [self.encode_one(core, prompt, cached) for prompt in prompts]
        return left_padded(items, self.tokenizer.pad_token_id)

    def encode_one(self, core: Any, prompt: Prompt, cached: bool) -> dict[str, Tensor]:
        """The tensors of one prompt, each with a leading dimension of 1 or of its images."""
        key = (prompt.root, "\x1f".join((prompt.text, *prompt.images)))
        if cached and (known := self._encoded.get(key)) is not None:
            item, name = known
            if name is None:
                return item
            if self._store and (features := self._store.get(name)) is not None:  # else the file was taken away
                return item | as_inputs(features)
        item = self.process(prompt)
        return self._with_features(core, item, key) if cached and "pixel_values" in item else item

    def process(self, prompt: Prompt) -> dict[str, Tensor]:
        """What the processor makes of a prompt. Raises ImageError for an image that cannot be read, WorkError for one that
        the processor refuses, RecipeError where the model sees none."""
        arguments: dict[str, Any] = {"text": [prompt.text], "return_tensors": "pt"}
        if prompt.images:
            if self.processor is self.tokenizer:
                raise RecipeError("policy.model sees no images, and the studies bring some: set studies.max_images=0")
            arguments["images"] = [[load_image(prompt.root, path) for path in prompt.images]]
        bos = self.tokenizer.bos_token
        if bos and prompt.text.startswith(bos):  # the chat template has written it already
            arguments["add_special_tokens"] = False
        try:
            return {k: v for k, v in self.processor(**arguments).items() if isinstance(v, Tensor)}
        except REFUSALS as error:
            shown = ", ".join(str(prompt.root / path) for path in prompt.images) or "a prompt without images"
            told = " ".join(str(error).split())[:300]
            raise WorkError(f"{shown}: the model's processor refuses it ({type(error).__name__}: {told})") from error

    def _with_features(self, core: Any, item: dict[str, Tensor], key: tuple[Path, str]) -> dict[str, Tensor]:
        """The same prompt with the tower's features in place of the pixels, remembered unless the disk's share is used up."""
        rest = {k: v for k, v in item.items() if k not in NOT_KEPT}
        if self._store is None:
            whole = rest | as_inputs(tower_features(core, item))
            self._encoded[key] = whole, None
            return whole
        name = self._store.name(item)
        features = self._store.get(name)
        kept = features is not None
        if features is None:
            features = self._store.rounded(tower_features(core, item))
            kept = self._store.put(name, features)
        if kept:
            self._encoded[key] = rest, name
        return rest | as_inputs(features)

    def keep_features(self, core: Any, folder: Path, gib: float, dtype: torch.dtype | None = None) -> None:
        """Reuse the frozen tower's features, and keep up to `gib` GiB of them in `folder` (0: in memory alone), in `dtype`."""
        self.reuse_features = True
        self._store = FeatureStore(folder, core, int(gib * 2**30), dtype) if gib else None

    def forget(self) -> None:
        """Every prompt is encoded anew from now on."""
        self._encoded.clear()
