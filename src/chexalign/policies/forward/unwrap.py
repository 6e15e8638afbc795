"""From a model, wrapped by PEFT or not, to its parts: the one place that knows how the wrapper is built."""

from __future__ import annotations

from typing import Any


def base_model(model: Any) -> Any:
    """The Hugging Face model itself, without PEFT's wrapper where it has one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def core_model(model: Any) -> Any:
    """The same without its output layer: what gives hidden states."""
    base = base_model(model)
    return getattr(base, base.base_model_prefix)
