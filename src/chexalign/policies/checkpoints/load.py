"""A checkpoint folder or a hub id → the model and its processor: safetensors only, no network and no remote code unasked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from chexalign.errors import RecipeError
from chexalign.policies.checkpoints import adapter, chexagent2
from chexalign.policies.checkpoints.gaps import refuse_gaps
from chexalign.policies.checkpoints.processors import load_processor
from chexalign.policies.forward.head import check_head

# what transformers and its parts raise where a folder is not as they want it
REFUSALS: tuple[type[Exception], ...] = (
    OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError,
    StrictDataclassError,
)  # fmt: skip


@dataclass(frozen=True)
class Loading:
    """How a checkpoint is opened: the type of its weights, and what is allowed."""

    dtype: str = "float32"
    download: bool = False
    trust_remote_code: bool = False
    device: str | torch.device | None = None  # None: the GPU where there is one; "meta": names and shapes alone

    @property
    def hub(self) -> dict[str, Any]:
        """What the Auto classes are told of it."""
        return {"local_files_only": not self.download, "trust_remote_code": self.trust_remote_code}


def load_checkpoint(source: str | Path, how: Loading) -> tuple[Any, Any, str]:
    """(model, processor, name) of a folder or hub id, in evaluation mode; an adapter's folder opens its base too.

    Raises RecipeError when it is not there, cannot be loaded that way, or does not hold every weight of the model.
    """
    if adapter.is_adapter(source):
        base, processor, _ = load_checkpoint(adapter.base_of(Path(source)), how)
        return adapter.load_adapter(base, Path(source)), processor, Path(source).name
    name = Path(source).name if Path(source).exists() else str(source)
    place = _place(source, how)
    with refusals_told(name):
        model, processor = _open(place, how)
    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.name_or_path = str(source)  # an adapter names its base so: by its hub id, not by where this machine keeps it
    model.eval()
    if how.device != "meta":
        model.to(how.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        check_head(model)
    return model, processor, name


def describe_checkpoint(source: str | Path, how: Loading) -> tuple[Any, Any]:
    """(configuration, processor) alone, without the weights. Raises RecipeError as `load_checkpoint` does."""
    if adapter.is_adapter(source):
        return describe_checkpoint(adapter.base_of(Path(source)), how)
    with refusals_told(Path(source).name if Path(source).exists() else str(source)):
        place = _place(source, how)
        if chexagent2.recognises(place, download=how.download):
            return chexagent2.describe(place, download=how.download)
        config, seeing = _config(place, how)
        return config, load_processor(place, config, seeing, **how.hub)


@contextmanager
def refusals_told(name: str) -> Iterator[None]:
    """What transformers raises inside becomes one line about the model of that name. Raises RecipeError."""
    loud = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # its table of missing weights: they are named in one line here
    try:
        yield
    except REFUSALS as error:
        raise RecipeError(
            f"policy.model {name!r}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error
    finally:
        transformers_logging.set_verbosity(loud)


def _place(source: str | Path, how: Loading) -> str | Path:
    """Where to look: of a hub id that may not be fetched, its folder in the cache; the Auto classes ask the network."""
    return source if how.download or Path(source).exists() else downloaded_before(str(source))


def _open(place: str | Path, how: Loading) -> tuple[Any, Any]:
    """The two Hugging Face objects. Raises what transformers raises, and RecipeError for weights that are absent."""
    device_map = "meta" if how.device == "meta" else None
    if chexagent2.recognises(place, download=how.download):
        return chexagent2.load(place, dtype=how.dtype, download=how.download, device_map=device_map)
    config, seeing = _config(place, how)
    kind: Any = AutoModelForImageTextToText if seeing else AutoModelForCausalLM
    model, report = kind.from_pretrained(
        place,
        config=config,
        dtype=how.dtype,
        use_safetensors=True,
        device_map=device_map,
        ignore_mismatched_sizes=True,  # refused below, with the rest
        output_loading_info=True,
        **how.hub,
    )
    refuse_gaps(place, report)
    return model, load_processor(place, config, seeing, **how.hub)


def _config(place: str | Path, how: Loading) -> tuple[Any, bool]:
    """The configuration, and whether the model sees images. Raises RecipeError for an encoder-decoder."""
    config = AutoConfig.from_pretrained(place, **how.hub)
    if config.is_encoder_decoder:
        raise RecipeError(
            f"policy.model {str(place)!r} is an encoder-decoder ({config.model_type}); chexalign aligns decoder-only models"
        )
    return config, config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def downloaded_before(name: str) -> str:
    """The folder of a hub id in the hub's cache on this machine. Raises RecipeError where it is not there."""
    try:
        return snapshot_download(name, local_files_only=True)
    except LocalEntryNotFoundError as error:
        raise RecipeError(
            f"policy.model {name!r} is not on this machine: give a checkpoint folder, or set policy.download=true to fetch "
            "the hub id"
        ) from error
