"""Adapters of transformers 4 (ms-swift, LLaMA-Factory) name other modules: renamed by transformers' own map."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import load_file, save_file
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from chexalign.progress import say_once

WEIGHTS, PEFT_PREFIX = "adapter_model.safetensors", "base_model.model."


def renamed(model: Any, keys: Iterable[str]) -> dict[str, str]:
    """{key of an adapter's file: its key in `model`}: the renamings that transformers applies to the base's own weights.

    A name of today stays as it is.
    """
    renamings = [r for r in get_model_conversion_mapping(model) if isinstance(r, WeightRenaming)]
    today = {name for name, _ in model.named_modules()}
    found = {}
    for key in keys:
        name = key.removeprefix(PEFT_PREFIX)
        if module_of(key) not in today:
            for renaming in renamings:
                name, _ = renaming.rename_source_key(name)
        found[key] = PEFT_PREFIX + name
    return found


def module_of(key: str) -> str:
    """`base_model.model.model.layers.0.mlp.up_proj.lora_A.weight` → `model.layers.0.mlp.up_proj`."""
    return key.removeprefix(PEFT_PREFIX).partition(".lora_")[0]


@contextmanager
def names_of_today(model: Any, folder: Path, config: Any) -> Iterator[Path]:
    """A folder whose weights have the names of `model`'s modules: `folder` itself, or a renamed copy while it is read.

    Where a pattern chose the modules, `config` then names those that the file holds: the pattern is of the old names.
    """
    weights = load_file(folder / WEIGHTS)
    names = renamed(model, weights)
    if all(old == new for old, new in names.items()):
        yield folder
        return
    say_once(f"adapter {folder.name}: its modules have the names of transformers 4; renamed by transformers' own map")
    if isinstance(config.target_modules, str):
        config.target_modules = {module_of(new) for new in names.values()}
    with TemporaryDirectory() as place:
        save_file({names[old]: value for old, value in weights.items()}, Path(place) / WEIGHTS)
        yield Path(place)
