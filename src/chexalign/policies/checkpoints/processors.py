"""A checkpoint's processor or tokenizer, opened on machines without torchvision too: reports need images, not video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoProcessor, AutoTokenizer, Idefics3Processor, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.auto.video_processing_auto import get_video_processor_config
from transformers.utils import cached_file, is_torchvision_available

from chexalign.errors import RecipeError
from chexalign.progress import say_once


def load_processor(source: str | Path, config: Any, seeing: bool, **common: Any) -> Any:
    """The processor of a model that sees, the tokenizer of one that does not.

    Raises OSError or ValueError when the files are not there, RecipeError when they cannot serve images.
    """
    if not seeing:
        return AutoTokenizer.from_pretrained(source, **common)
    kind = _class_of(source, config, common)
    if kind is not None and kind.__name__ == "SmolVLMProcessor":
        kind = Idefics3Processor  # the same for images, without the two packages that video needs
    elif kind is None or is_torchvision_available() or "video_processor" not in kind.get_attributes():
        kind = AutoProcessor
    else:
        kind = stills_only(kind, get_video_processor_config(str(source), **_offline(common)))
    try:
        processor = kind.from_pretrained(source, **common)
    except ImportError as error:
        raise RecipeError(f"policy.model {str(source)!r}: {' '.join(str(error).split())[:300]}") from error
    if not hasattr(processor, "image_processor"):
        raise RecipeError(f"policy.model {str(source)!r} sees images, but its folder has no image processor")
    return _completed(processor, config)


def _completed(processor: Any, config: Any) -> Any:
    """A LLaVA folder of before 2024 has no processor_config.json: what it would say stands in the model's configuration."""
    tower: Any = getattr(config, "vision_config", None)
    if getattr(processor, "patch_size", 0) is None and hasattr(tower, "patch_size"):
        processor.patch_size = tower.patch_size
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        processor.num_additional_image_tokens = int(tower.model_type == "clip_vision_model")  # its class token
        say_once(
            f"processor: patches of {tower.patch_size} pixels, as the model's configuration says; its own does not"
        )
    return processor


def _offline(common: dict[str, Any]) -> dict[str, Any]:
    return {"local_files_only": common.get("local_files_only", False)}


def _class_of(source: str | Path, config: Any, common: dict[str, Any]) -> Any:
    """The processor class that the folder names, or else the model's own; None for one that transformers does not have."""
    quiet = {f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "connection_errors", "gated_repo")}
    file = cached_file(source, "processor_config.json", **quiet, **_offline(common))
    named = (
        getattr(transformers, json.loads(Path(file).read_text()).get("processor_class") or "", None) if file else None
    )
    if isinstance(named, type) and issubclass(named, ProcessorMixin):
        return named
    return PROCESSOR_MAPPING.get(type(config), None)


def stills_only(kind: Any, video: dict[str, Any]) -> Any:
    """The processor class without its part for video; saving hands that part's settings on as they were read."""

    def get_attributes(cls: Any) -> list[str]:
        return [name for name in kind.get_attributes() if name != "video_processor"]

    def to_dict(self: Any) -> dict[str, Any]:
        return {**kind.to_dict(self), **({"video_processor": video} if video else {})}

    # the same name: it is what a saved folder says should open it
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(get_attributes), "to_dict": to_dict})
