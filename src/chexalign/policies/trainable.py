"""What learns: all but the frozen parts, or adapters on the decoder and the other parts in full."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from chexalign.errors import RecipeError
from chexalign.policies.adapters import has_adapter
from chexalign.policies.checkpoints.adapter import REFERENCE, TRAINED, base_name, quiet
from chexalign.policies.forward.unwrap import core_model
from chexalign.policies.parts import PARTS, belongs
from chexalign.recipe.policy import Lora

if TYPE_CHECKING:
    from chexalign.policies.policy import Policy


def make_trainable(policy: Policy, freeze: Sequence[str], lora: Lora | None, seed: int) -> None:
    """Full fine-tuning of all but the frozen parts; or adapters on the decoder, and the other parts in full unless frozen."""
    if lora is None:
        if has_adapter(policy.model):
            policy.use(policy.model.merge_and_unload())
        policy.freeze(freeze)
        return
    others = [p for p in ("tower", "projector") if p not in freeze]
    policy.use(
        _continued(policy.model, lora, others)
        if has_adapter(policy.model)
        else _fresh(policy.model, lora, others, seed)
    )
    if (dtype := policy.scorer.compute_dtype) is not None and not lora.dora and policy.device.type == "cpu":
        _narrow(policy.model, dtype)
    for name, parameter in core_model(policy.model).named_parameters():
        own = re.sub(r"\.modules_to_save\.\w+", "", name)  # as it is called outside PEFT's wrapper
        if any(belongs(own, part) for part in freeze if part != "decoder"):
            parameter.requires_grad_(False)
    policy.reuse_features = "tower" in freeze


def refuse_before_adapter(policy: Policy, freeze: Sequence[str]) -> None:
    """Before a LoRA warm-up: what `train` will refuse after it. Its adapter holds the decoder alone, so no other part can
    learn on top of it. Raises RecipeError."""
    core = core_model(policy.model)
    if lost := [p for p in ("tower", "projector") if p not in freeze and _attribute(core, p)]:
        raise RecipeError(
            f"warmup.lora makes an adapter of the decoder, which train.lora continues: the {lost[0]} cannot learn then; set "
            "train.freeze=[tower, projector]"
        )


def _narrow(model: Any, dtype: torch.dtype) -> None:
    """Keep the adapted layers' frozen weights in the type of the products: autocast would make that copy in every pass.

    The same values. On a GPU the copy costs little, and FSDP wants one type for all weights.
    """
    for name, module in model.named_modules():
        if name.endswith(".base_layer") and isinstance(module, nn.Linear):
            module.to(dtype)


def _targets(model: Any, lora: Lora) -> str:
    """A pattern of the decoder's linear layers that the recipe names, for PEFT."""
    core = core_model(model)
    linear = [n for n, m in core.named_modules() if isinstance(m, nn.Linear) and belongs(n, "decoder")]
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

    core = core_model(model)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        target_modules=_targets(model, lora),
        modules_to_save=[name for part in others if (name := _attribute(core, part))] or None,
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        whole = get_peft_model(model, config).eval()
    whole.peft_config[TRAINED].base_model_name_or_path = base_name(model)
    return whole


def _attribute(core: Any, part: str) -> str | None:
    names = {name for name, _ in core.named_modules()}
    return next((a for a in PARTS[part] if a in names), None)


def _continued(model: Any, lora: Lora, others: Sequence[str]) -> Any:
    """The opened adapter learns on; a frozen copy of it is the reference."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    config, core = model.peft_config[TRAINED], core_model(model)
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
