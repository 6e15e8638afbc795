"""Optimisers by name, all from libraries, and the moving average of weights."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from chexalign.errors import RecipeError


def make_optimiser(
    name: str, parameters: Sequence[nn.Parameter], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """`adamw` keeps two numbers per weight, `adamw_8bit` two bytes, `adafactor` a row and a column per matrix."""
    if name == "adafactor":  # rates mean what they mean for AdamW: neither relative nor scaled by the weights
        from transformers.optimization import Adafactor

        return Adafactor(
            parameters, lr=lr, weight_decay=weight_decay, scale_parameter=False, relative_step=False, warmup_init=False
        )
    if name == "adamw_8bit":
        try:
            library = importlib.import_module("bitsandbytes")
        except ImportError as error:
            raise RecipeError(
                f"train.optimiser adamw_8bit needs bitsandbytes ({error}): pip install bitsandbytes, or take adafactor"
            ) from error
        return library.optim.AdamW8bit(parameters, lr=lr, weight_decay=weight_decay)
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)  # one pass over the weights


class MovingAverage:
    """Exponential moving average of the weights that learn: a ← decay·a + (1 − decay)·w after every step."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float):
        self.parameters = parameters
        self.average: list[Tensor] = [p.detach().clone() for p in parameters]
        self._move: Any = get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        """One step of the average, in place; to be called after the optimizer's."""
        self._move(self.average, [p.detach() for p in self.parameters], None)

    @torch.no_grad()
    def exchange(self) -> None:
        """Put the average into the model and keep the weights; a second call puts them back."""
        for parameter, average in zip(self.parameters, self.average, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights, in the order of the parameters that learn."""
        return {"average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copies in place; raises RuntimeError where shapes differ."""
        torch._foreach_copy_(self.average, state["average"])
