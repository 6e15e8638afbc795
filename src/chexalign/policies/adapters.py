"""A model that carries an adapter: what its reference is, and when its dropout is on.

A fresh adapter starts at zero, so its reference is the model with the adapter off. A baseline that is itself an adapter
(LoRA SFT) is continued: the trained adapter starts as its copy, and the frozen original is the reference. The base model is
in memory once either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from chexalign.errors import WorkError
from chexalign.policies.checkpoints.adapter import REFERENCE, TRAINED


def has_adapter(model: Any) -> bool:
    """Whether PEFT has put an adapter into the model, active or not."""
    return hasattr(model, "peft_config")


@contextmanager
def reference(model: Any) -> Iterator[None]:
    """Inside, the model is its reference. Which parameters learn is as before afterwards."""
    if not has_adapter(model):
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
def lora_dropout_on(module: nn.Module) -> Iterator[None]:
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
