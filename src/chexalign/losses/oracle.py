"""OraPO's mixing weight: how much the DPO oracle educates a group that GRPO cannot learn from."""

from __future__ import annotations


def oracle_weight(zrr_ema: float, *, w_min: float, w_max: float, gamma: float) -> float:
    """w = clip(w_min + (w_max − w_min)·ẑ^γ, w_min, w_max), ẑ the moving average of the zero-reward rate in [0, 1].

    Source: OraPO (reference/papers.md restates the formula lost in the text).
    """
    if not 0.0 <= zrr_ema <= 1.0:
        raise ValueError(f"zrr_ema must lie in [0, 1], got {zrr_ema}")
    return min(max(w_min + (w_max - w_min) * zrr_ema**gamma, w_min), w_max)
