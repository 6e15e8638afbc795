"""Images and texts in one space, by any CLIP- or SigLIP-type checkpoint that transformers loads itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModel, AutoProcessor

from chexalign.errors import RecipeError
from chexalign.judges.weights import local_folder

NOT_NATIVE = {  # a part of the id → why transformers cannot load it as it is
    "biomedclip": "BiomedCLIP is stored for open_clip (a timm tower and an MLP head); convert it to a transformers checkpoint",
    "biovil": "BioViL is two checkpoints, CXR-BERT with code of its own and a ResNet-50 file for hi-ml-multimodal",
    "cxr-bert": "CXR-BERT is BioViL's text tower alone; its image tower is a ResNet-50 file for hi-ml-multimodal",
}
NATIVE = "StanfordAIMI/XraySigLIP__… and XrayCLIP__…, google/medsiglip-448, any CLIP or SigLIP folder"


@dataclass(frozen=True)
class TwoTowers:
    """A frozen model with its processor. Embeddings are float32 rows of length 1."""

    model: Any
    processor: Any
    limit: int  # tokens that the text tower reads
    batch: int = 32  # texts or images in one forward pass

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has; what is beyond `limit` is not read."""
        if not texts:
            return []
        return [len(ids) for ids in self.processor.tokenizer([_clean(t) for t in texts], verbose=False)["input_ids"]]

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d). SigLIP reads padding too, so its texts always have the full length; others are padded to the longest."""
        padding = "max_length" if self.model.config.model_type.startswith("siglip") else "longest"
        return self._embed(
            [
                self.processor.tokenizer(
                    [_clean(t) for t in part],
                    padding=padding,
                    truncation=True,
                    max_length=self.limit,
                    return_tensors="pt",
                )
                for part in _parts(texts, self.batch)
            ],
            self.model.get_text_features,
        )

    def images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(n, d)."""
        process = self.processor.image_processor
        inputs = (process(images=list(part), return_tensors="pt") for part in _parts(images, self.batch))
        return self._embed(inputs, self.model.get_image_features)

    @torch.inference_mode()
    def _embed(self, batches: Any, tower: Any) -> np.ndarray:
        rows = [unit(tower(**inputs.to(self.model.device))).float().cpu().numpy() for inputs in batches]
        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)


def unit(features: Any) -> Tensor:
    """(n, d) rows of length 1, from what a tower returns (transformers 5 returns an output object, 4 a tensor)."""
    rows = features if isinstance(features, Tensor) else features.pooler_output
    return torch.nn.functional.normalize(rows, dim=-1)


def open_two_towers(model: str, *, download: bool, trust_remote_code: bool, device: str) -> TwoTowers:
    """Load by folder or hub id. Raises RecipeError for what is missing, incomplete or no two-tower model."""
    try:
        where = model if download else local_folder(model)
        loaded, info = AutoModel.from_pretrained(where, output_loading_info=True, trust_remote_code=trust_remote_code)
        processor = AutoProcessor.from_pretrained(where, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise RecipeError(f"cannot load {model}: {not_native(model) or str(error).splitlines()[0]}") from error
    if not (hasattr(loaded, "get_image_features") and hasattr(loaded, "get_text_features")):
        raise RecipeError(f"{model} is a {type(loaded).__name__}, which has not both towers; these have: {NATIVE}")
    if absent := sorted(info["missing_keys"]) + sorted(str(k) for k in info["mismatched_keys"]):
        raise RecipeError(f"{model} lacks {len(absent)} of its tensors (first: {absent[0]}); its scores would be noise")
    for part in ("image_processor", "tokenizer"):
        if getattr(processor, part, None) is None:
            raise RecipeError(f"{model} has no {part}; save the whole processor beside the weights")
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    text = loaded.config.get_text_config()
    limit = min(text.max_position_embeddings, processor.tokenizer.model_max_length)
    return TwoTowers(loaded.eval().requires_grad_(False).to(place), processor, limit)


def not_native(model: str) -> str | None:
    """Why transformers cannot load this well-known model, or None."""
    name = model.lower()
    if Path(model).is_dir() and (Path(model) / "config.json").is_file():
        return None
    return next((f"{why}; natively load: {NATIVE}" for part, why in NOT_NATIVE.items() if part in name), None)


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode()  # half a surrogate pair, which no tokenizer takes, becomes "?"


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))
