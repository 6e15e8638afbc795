"""Online algorithms: name → advantages, loss, stages. One file each; the loop executes them and never asks their names."""

from __future__ import annotations

from typing import Any

from chexalign.train.online.algorithms import grpo, online_dpo, online_kto, orapo, valor
from chexalign.train.online.algorithms.base import OnlineAlgorithm

ONLINE: dict[str, OnlineAlgorithm] = {
    "grpo": grpo.ALGORITHM,
    "orapo": orapo.ALGORITHM,
    "valor": valor.ALGORITHM,
    "online_dpo": online_dpo.ALGORITHM,
    "online_kto": online_kto.ALGORITHM,
}


def algorithm_of(settings: Any) -> OnlineAlgorithm:
    """The algorithm of a recipe's `train.algorithm` section."""
    return ONLINE[settings.type]
