"""LoRA and DoRA through PEFT: what learns, what the reference is, and a folder that holds an adapter and names its base.

A fresh adapter starts at zero, so its reference is the model with the adapter off. A baseline that is itself an adapter
(LoRA SFT) is continued: the trained adapter starts as its copy, and the frozen original is the reference. The base model is
in memory once either way.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from chexalign.errors import RecipeError, WorkError
from chexalign.policies.forward.logps import inner_model
from chexalign.recipe.recipe import Lora

if TYPE_CHECKING:
    from chexalign.policies.policy import Policy

TRAINED, REFERENCE = "default", "reference"  # PEFT's names of the adapter that learns and of the frozen one


def attached(model: Any) -> bool:
    return hasattr(model, "peft_config")


# ---- folders


def is_adapter(source: str | Path) -> bool:
    return (Path(source) / "adapter_config.json").is_file()


def base_of(folder: Path) -> str | Path:
    """The base that an adapter folder names: a path from the folder, another path, or a hub id."""
    try:
        name = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise RecipeError(f"{folder}/adapter_config.json names no base model ({error!r})") from error
    beside = folder / str(name)
    return beside.resolve() if beside.is_dir() else str(name)


def opened(model: Any, folder: Path) -> Any:
    """The base with the folder's adapter on it, nothing of which learns yet. Raises RecipeError if they do not fit."""
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise RecipeError(f"{path} is missing; only safetensors adapters are opened")
    config = PeftConfig.from_pretrained(str(folder))
    if config.peft_type != "LORA":
        raise RecipeError(f"{folder} is an adapter of type {config.peft_type}; LoRA and DoRA are supported")
    config.base_model_name_or_path, config.inference_mode = _name(model), True
    try:
        with _agreed():
            whole = PeftModel.from_pretrained(model, str(folder), config=config).eval()
    except (ValueError, RuntimeError) as error:
        raise RecipeError(
            f"{folder} does not fit its base {_name(model)}: {' '.join(str(error).split())[:300]}"
        ) from error
    with safe_open(path, "pt") as file:
        stored, wanted = set(file.keys()), set(get_peft_model_state_dict(whole, save_embedding_layers=False))
    if stored != wanted:
        raise RecipeError(
            f"{folder} does not fit its base {_name(model)}: {sorted(stored ^ wanted)[:3]} on one side only"
        )
    return whole


@contextmanager
def _agreed() -> Iterator[None]:
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
    model.get_base_model().config.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card


def _name(model: Any) -> str:
    """The path or hub id a model was loaded from; a path is made absolute."""
    name = str(model.name_or_path)
    return str(Path(name).absolute()) if name and Path(name).is_dir() else name


def _path_from(folder: Path, name: str) -> str:
    run = next((p for p in folder.parents if (p / "manifest.json").is_file() and p in Path(name).parents), None)
    return os.path.relpath(name, folder) if run else name


# ---- what learns


def make_trainable(policy: Policy, freeze: Sequence[str], lora: Lora | None, seed: int) -> None:
    """Full fine-tuning of all but the frozen parts; or adapters on the decoder, and the other parts in full unless frozen."""
    if lora is None:
        if attached(policy.model):
            policy.use(policy.model.merge_and_unload())
        policy.freeze(freeze)
        return
    others = [p for p in ("tower", "projector") if p not in freeze]
    policy.use(
        _continued(policy.model, lora, others) if attached(policy.model) else _fresh(policy.model, lora, others, seed)
    )
    if (dtype := policy.scorer.compute_dtype) is not None and not lora.dora and policy.device.type == "cpu":
        _narrow(policy.model, dtype)
    for name, parameter in inner_model(policy.model)[0].named_parameters():
        own = re.sub(r"\.modules_to_save\.\w+", "", name)  # as it is called outside PEFT's wrapper
        if any(_belongs(own, part) for part in freeze if part != "decoder"):
            parameter.requires_grad_(False)
    policy.reuse_features = "tower" in freeze


def _narrow(model: Any, dtype: torch.dtype) -> None:
    """Keep the adapted layers' frozen weights in the type of the products: autocast would make that copy in every pass.

    The same values. On a GPU the copy costs little, and FSDP wants one type for all weights.
    """
    for name, module in model.named_modules():
        if name.endswith(".base_layer") and isinstance(module, nn.Linear):
            module.to(dtype)


def _belongs(name: str, part: str) -> bool:
    from chexalign.policies.policy import PARTS

    return name.startswith(PARTS[part]) and not (part == "tower" and name.startswith(PARTS["projector"]))


def _targets(model: Any, lora: Lora) -> str:
    """A pattern of the decoder's linear layers that the recipe names, for PEFT."""
    core, _ = inner_model(model)
    linear = [n for n, m in core.named_modules() if isinstance(m, nn.Linear) and _belongs(n, "decoder")]
    known = list(dict.fromkeys(n.rpartition(".")[2] for n in linear))
    if not known:
        raise RecipeError(
            f"train.lora: no linear layer is known in the decoder of {type(core).__name__}; leave lora out"
        )
    wanted = known if lora.targets == "all-linear" else list(lora.targets)
    if lost := [t for t in wanted if t not in known]:
        raise RecipeError(
            f"train.lora.targets: the decoder has no linear layer {lost[0]!r}; there are {', '.join(known)}"
        )
    tops = sorted({n.partition(".")[0] for n in linear})
    prefix = re.escape(model.base_model_prefix)
    return rf"{prefix}\.({'|'.join(map(re.escape, tops))})\.(.*\.)?({'|'.join(map(re.escape, wanted))})"


def _fresh(model: Any, lora: Lora, others: Sequence[str], seed: int) -> Any:
    """A zero adapter. Parts that learn in full are copied by PEFT, so that adapter-off is the untouched model."""
    from peft import LoraConfig, get_peft_model

    core, _ = inner_model(model)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        target_modules=_targets(model, lora),
        modules_to_save=[name for part in others if (name := _attribute(core, part))] or None,
    )
    with torch.random.fork_rng(devices=[]), _agreed():
        torch.manual_seed(seed)
        whole = get_peft_model(model, config).eval()
    whole.peft_config[TRAINED].base_model_name_or_path = _name(model)
    return whole


def _attribute(core: Any, part: str) -> str | None:
    from chexalign.policies.policy import PARTS

    names = {name for name, _ in core.named_modules()}
    return next((a for a in PARTS[part] if a in names), None)


def _continued(model: Any, lora: Lora, others: Sequence[str]) -> Any:
    """The opened adapter learns on; a frozen copy of it is the reference."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    config, core = model.peft_config[TRAINED], inner_model(model)[0]
    old, new = (config.r, config.lora_alpha, config.use_dora), (lora.r, lora.alpha, lora.dora)
    if old != new:
        raise RecipeError(
            f"train.lora continues the baseline's adapter, which has r {old[0]}, alpha {old[1]}, dora {old[2]}: "
            f"the recipe must say the same, not r {new[0]}, alpha {new[1]}, dora {new[2]}"
        )
    layers = {n: m for n, m in core.named_modules() if hasattr(m, "lora_A")}
    kinds = {n.rpartition(".")[2] for n in layers}
    if lora.targets != "all-linear" and kinds != set(lora.targets):
        raise RecipeError(
            f"train.lora.targets must be the baseline adapter's: {sorted(kinds)}, not {sorted(lora.targets)}"
        )
    if lora.dropout:
        raise RecipeError("train.lora.dropout must be 0 where an adapter is continued: the reference would be another")
    if lost := [p for p in others if _attribute(core, p) not in (None, *(config.modules_to_save or ()))]:
        raise RecipeError(f"the baseline's adapter does not hold the {lost[0]}: add it to train.freeze")
    for layer in layers.values():
        layer.lora_dropout[TRAINED] = nn.Identity()
    model.add_adapter(REFERENCE, config)
    set_peft_model_state_dict(model, get_peft_model_state_dict(model, save_embedding_layers=False), REFERENCE)
    model.requires_grad_(False)
    model.set_adapter(TRAINED)
    return model.eval()


# ---- while it learns


@contextmanager
def reference(model: Any) -> Iterator[None]:
    """Inside, the model is its reference. Which parameters learn is as before afterwards."""
    if not attached(model):
        raise WorkError("all weights learn, so the model holds no reference: store its log-probs before training")
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        if REFERENCE in model.peft_config:
            model.set_adapter(REFERENCE, inference_mode=True)
            yield
        else:
            with model.disable_adapter():
                yield
    finally:
        if REFERENCE in model.peft_config:
            model.set_adapter(TRAINED)
        for parameter, learns in flags:
            parameter.requires_grad_(learns)


@contextmanager
def dropping(module: nn.Module) -> Iterator[None]:
    """Inside, LoRA dropout is on. Everything else of a policy stays in evaluation mode at all times."""
    wrapped: list[Any] = [m for m in module.modules() if hasattr(m, "lora_dropout")]
    layers = [d for m in wrapped for d in m.lora_dropout.values()]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()
