"""Linear layers for a few rows at a time on a CPU, with their weights laid out once for oneDNN.

Sampling multiplies a handful of rows by every weight for each token. torch's plain float32 product is made for many rows; for
few of them oneDNN's, on weights in its own blocked order, takes about half the time. torch's compiler uses the same two
operators. The copy of the weights lasts as long as the context. Values differ by float32 rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from chexalign.policies.forward.layers import forward_as

MOST_ROWS = 64  # above that the gain is small
LARGEST = 1 << 28  # weights, so that the copy is at most 1 GiB


@contextmanager
def packed(modules: Sequence[nn.Module], rows: int) -> Iterator[None]:
    """Inside, the linear layers of `modules` are computed by oneDNN where they are float32 on a CPU and rows are few."""
    layers = {id(m): m for module in modules for m in module.modules() if type(m) is nn.Linear and _plain(m)}
    with ExitStack() as stack:
        if rows <= MOST_ROWS and sum(m.weight.numel() for m in layers.values()) <= LARGEST and _available():
            for layer in layers.values():
                stack.enter_context(forward_as(layer, _forward(layer, rows)))
        yield


def _plain(layer: nn.Linear) -> bool:
    return layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32


def _available() -> bool:
    operators = ("_reorder_linear_weight", "_linear_pointwise")
    there = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in operators)
    return there and not torch.is_autocast_enabled("cpu")


def _forward(layer: nn.Linear, rows: int) -> Callable[[Tensor], Any]:
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    blocked = torch.ops.mkldnn._reorder_linear_weight(weight, rows)

    def forward(hidden: Tensor) -> Any:
        return torch.ops.mkldnn._linear_pointwise(hidden, blocked, bias, "none", [], "")

    return forward
