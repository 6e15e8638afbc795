"""An adapter's folder: LoRA and DoRA weights as safetensors, and the name of the base they belong to."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from chexalign.errors import RecipeError
from chexalign.policies.checkpoints.adapter_names import WEIGHTS, names_of_today
from chexalign.policies.forward.unwrap import base_model

TRAINED, REFERENCE = "default", "reference"  # PEFT's names of the adapter that learns and of the frozen one


def is_adapter(source: str | Path) -> bool:
    """Whether a local folder holds a PEFT adapter; False for a name on the hub."""
    return (Path(source) / "adapter_config.json").is_file()


def base_of(folder: Path) -> str | Path:
    """The base that an adapter folder names: a path from the folder, another path, or a hub id."""
    try:
        name = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise RecipeError(f"{folder}/adapter_config.json names no base model ({error!r})") from error
    beside = folder / str(name)
    return beside.resolve() if beside.is_dir() else str(name)


def load_adapter(model: Any, folder: Path) -> Any:
    """The base with the folder's adapter on it, nothing of which learns yet. Raises RecipeError if they do not fit."""
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    path = folder / WEIGHTS
    if not path.is_file():
        raise RecipeError(f"{path} is missing; only safetensors adapters are opened")
    config = PeftConfig.from_pretrained(str(folder))
    if config.peft_type != "LORA":
        raise RecipeError(f"{folder} is an adapter of type {config.peft_type}; LoRA and DoRA are supported")
    config.base_model_name_or_path, config.inference_mode = base_name(model), True
    try:
        with quiet(), names_of_today(model, folder, config) as named:
            with safe_open(named / WEIGHTS, "pt") as file:
                stored = set(file.keys())
            whole = PeftModel.from_pretrained(model, str(named), config=config).eval()
    except (ValueError, RuntimeError) as error:
        raise RecipeError(
            f"{folder} does not fit its base {base_name(model)}: {' '.join(str(error).split())[:300]}"
        ) from error
    wanted = set(get_peft_model_state_dict(whole, save_embedding_layers=False))
    if stored != wanted:
        raise RecipeError(
            f"{folder} does not fit its base {base_name(model)}: {sorted(stored ^ wanted)[:3]} on one side only"
        )
    return whole


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings of no use: PEFT 0.21 asks transformers 5 by an old name, and tells of keys that we count ourselves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        yield


def save(model: Any, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """The trained adapter as safetensors, its base named, and the base's config.json beside it.

    The base is named by a path from here where both are in one run folder, so that the run can be moved.
    """
    config, name = model.peft_config[TRAINED], model.peft_config[TRAINED].base_model_name_or_path
    config.base_model_name_or_path = _path_from(folder.absolute(), name)
    model.save_pretrained(folder, selected_adapters=[TRAINED], save_embedding_layers=False, state_dict=weights)
    config.base_model_name_or_path = name
    base_model(model).config.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card


def base_name(model: Any) -> str:
    """The path or hub id a model was loaded from; a path is made absolute."""
    name = str(model.name_or_path)
    return str(Path(name).absolute()) if name and Path(name).is_dir() else name


def _path_from(folder: Path, name: str) -> str:
    run = next((p for p in folder.parents if (p / "manifest.json").is_file() and p in Path(name).parents), None)
    return os.path.relpath(name, folder) if run else name
