"""OraPO's mixing weight: how much the DPO oracle educates a group that GRPO cannot learn from."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def oracle_weight(zrr_ema: float, *, w_min: float, w_max: float, gamma: float) -> float:
    """w = clip(w_min + (w_max − w_min)·ẑ^γ, w_min, w_max), ẑ the moving average of the zero-reward rate in [0, 1].

    Source: OraPO, the mixing weight of GRPO and the DPO oracle; gamma shapes how fast it grows with the rate.
    """
    if not 0.0 <= zrr_ema <= 1.0:
        raise ValueError(f"zrr_ema must lie in [0, 1], got {zrr_ema}")
    return min(max(w_min + (w_max - w_min) * zrr_ema**gamma, w_min), w_max)


def ema(old: float, value: float, *, momentum: float) -> float:
    """ẑ ← m·ẑ + (1 − m)·z. Source: OraPO, for the zero-reward rate of a prompt."""
    return momentum * old + (1 - momentum) * value


def ln_dpo(
    chosen_logps: Tensor,
    ref_chosen_logps: Tensor,
    chosen_lengths: Tensor,
    rejected_logps: Tensor,
    ref_rejected_logps: Tensor,
    rejected_lengths: Tensor,
    *,
    beta: float,
) -> Tensor:
    """Length-normalised DPO of one chosen text against a group: −log σ(β·(r_c/|y_c| − r_j/|y_j|)), (B, G) of it.

    r is a summed log-ratio to the reference. `chosen_*` are (B,), `rejected_*` (B, G); lengths in tokens, at least 1.
    Policy = reference gives log 2. Source: OraPO, whose positive is the radiologist's report.
    """
    chosen = (chosen_logps - ref_chosen_logps) / chosen_lengths
    rejected = (rejected_logps - ref_rejected_logps) / rejected_lengths
    return -F.logsigmoid(beta * (chosen[:, None] - rejected))
