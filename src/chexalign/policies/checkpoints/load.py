"""A checkpoint folder or a hub id → the model and its processor: safetensors only, no network and no remote code unasked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from chexalign.errors import RecipeError
from chexalign.policies.checkpoints import adapter, chexagent2
from chexalign.policies.checkpoints.processors import load_processor
from chexalign.policies.forward.head import check_head


@dataclass(frozen=True)
class Loading:
    """How a checkpoint is opened: the type of its weights, and what is allowed."""

    dtype: str = "float32"
    download: bool = False
    trust_remote_code: bool = False
    device: str | torch.device | None = None  # None: the GPU where there is one


def load_checkpoint(source: str | Path, how: Loading) -> tuple[Any, Any, str]:
    """(model, processor, name) of a folder or hub id, in evaluation mode; an adapter's folder opens its base too.

    Raises RecipeError when it is not there or cannot be loaded that way.
    """
    if adapter.is_adapter(source):
        base, processor, _ = load_checkpoint(adapter.base_of(Path(source)), how)
        return adapter.load_adapter(base, Path(source)), processor, Path(source).name
    name = Path(source).name if Path(source).exists() else str(source)
    asked = str(source)
    try:
        if not how.download and not Path(source).exists():  # the Auto classes ask the network all the same
            source = downloaded_before(str(source))
        model, processor = _open(source, how, asked)
    except (OSError, ValueError) as error:
        hint = "" if how.download else "; it is not on this machine, or set policy.download=true to fetch a hub id"
        raise RecipeError(f"policy.model {name!r}: {' '.join(str(error).split())[:300]}{hint}") from error
    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.name_or_path = asked  # an adapter names its base so: by its hub id, not by where this machine keeps it
    model.eval()
    model.to(how.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    check_head(model)
    return model, processor, name


def _open(source: str | Path, how: Loading, asked: str) -> tuple[Any, Any]:
    """The two Hugging Face objects. Raises OSError or ValueError as transformers does."""
    if chexagent2.recognises(source, download=how.download):
        return chexagent2.load(source, dtype=how.dtype, download=how.download)
    common = {"local_files_only": not how.download, "trust_remote_code": how.trust_remote_code}
    config = AutoConfig.from_pretrained(source, **common)
    if config.is_encoder_decoder:
        raise RecipeError(
            f"policy.model {asked!r} is an encoder-decoder ({config.model_type}); chexalign aligns decoder-only models"
        )
    seeing = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    kind = AutoModelForImageTextToText if seeing else AutoModelForCausalLM
    model = kind.from_pretrained(source, config=config, dtype=how.dtype, use_safetensors=True, **common)
    return model, load_processor(source, config, seeing, **common)


def downloaded_before(name: str) -> str:
    """The folder of a hub id in the hub's cache on this machine. Raises RecipeError where it is not there."""
    try:
        return snapshot_download(name, local_files_only=True)
    except LocalEntryNotFoundError as error:
        raise RecipeError(
            f"policy.model {name!r} is not on this machine: give a checkpoint folder, or set policy.download=true to fetch "
            "the hub id"
        ) from error
