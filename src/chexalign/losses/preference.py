"""Preference losses: a page of pure functions.

Notation, used throughout: `*_logps` are log-probabilities of whole completions, summed over completion tokens, shape
(B,), in nats; `*_lengths` are token counts, shape (B,). Every function returns per-example values, shape (B,): reduce
once, in the loop. h = (chosen − ref_chosen) − (rejected − ref_rejected) is the difference of log-ratios.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def _same_shape(*tensors: Tensor) -> None:
    shapes = {tuple(t.shape) for t in tensors}
    if len(shapes) != 1:
        raise ValueError(f"all inputs need the same shape, got {sorted(shapes)}")


def log_ratio_margin(
    chosen_logps: Tensor, rejected_logps: Tensor, ref_chosen_logps: Tensor, ref_rejected_logps: Tensor
) -> Tensor:
    """h, the difference of log-ratios, (B,). Zero when policy = reference."""
    _same_shape(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return (chosen_logps - ref_chosen_logps) - (rejected_logps - ref_rejected_logps)


def dpo(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float,
) -> Tensor:
    """Direct preference optimisation: −log σ(β·h). (B,) → (B,).

    Policy = reference gives log 2. Raises ValueError where the shapes differ.
    Source: Rafailov et al. 2023, eq. 7; TRL's `loss_type="sigmoid"`.

    >>> import torch
    >>> pair = torch.tensor([-10.0]), torch.tensor([-12.0])  # chosen, rejected: summed log-probs in nats
    >>> dpo(*pair, *pair, beta=0.1)  # policy = reference: log 2
    tensor([0.6931])
    >>> dpo(*pair, torch.tensor([-11.0]), torch.tensor([-11.0]), beta=0.1)  # h = 1 − (−1) = 2
    tensor([0.5981])
    """
    return -F.logsigmoid(beta * log_ratio_margin(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps))


def lc_dpo(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    *,
    beta: float,
    alpha: float,
) -> Tensor:
    """Length-controlled DPO: −log σ(β·h + α·(|y_c| − |y_r|)). (B,) → (B,).

    α ≥ 0 sits outside β; lengths are in tokens. A chosen report that is longer already has part of its margin, so the
    loss pushes it less. α = 0 is `dpo`. Source: CheXalign (Hein et al. 2025), after Park et al. 2024.
    """
    h = log_ratio_margin(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps)
    _same_shape(h, chosen_lengths, rejected_lengths)
    return -F.logsigmoid(beta * h + alpha * (chosen_lengths - rejected_lengths).to(h.dtype))


def ipo(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    tau: float,
) -> Tensor:
    """Identity preference optimisation: (h − 1/(2τ))². (B,) → (B,).

    Feed summed log-probs for the paper's form, or log-probs already divided by their lengths for the averaged form that
    the CheXalign release and TRL (`loss_type="ipo"`) use. Policy = reference gives 1/(4τ²). Source: Azar et al. 2023, eq. 17.
    """
    h = log_ratio_margin(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return (h - 1.0 / (2.0 * tau)) ** 2


def kto(
    logps: Tensor,
    ref_logps: Tensor,
    desirable: Tensor,
    kl: Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Kahneman–Tversky optimisation on single completions. (B,) → (B,), or any one shape for all.

    r = logps − ref_logps; z = β·max(kl, 0), no gradient. Desirable rows: w_d·(1 − σ(β·r − z)); undesirable rows:
    w_u·(1 − σ(z − β·r)). `desirable` is boolean (B,); `kl` is the estimated KL in nats, a scalar or one
    per prompt: from completions of other studies, or from the policy's own samples where there are such. r = 0 and
    kl = 0 give half the weight. Source: Ethayarajh et al. 2024, eq. 8 (the sign printed
    for the second branch in CheXalign is a misprint).
    """
    _same_shape(logps, ref_logps, desirable)
    reward = beta * (logps - ref_logps)
    z = beta * kl.detach().clamp(min=0)
    good = desirable_weight * (1 - (reward - z).sigmoid())
    bad = undesirable_weight * (1 - (z - reward).sigmoid())
    return good.where(desirable.bool(), bad)


def orpo(
    chosen_logps: Tensor, rejected_logps: Tensor, chosen_lengths: Tensor, rejected_lengths: Tensor, *, lam: float
) -> Tensor:
    """Odds-ratio preference optimisation, no reference: −p̄_c − λ·log σ(log odds_c − log odds_r). (B,) → (B,).

    p̄ = logps / lengths is the mean token log-prob; log odds = p̄ − log(1 − exp p̄). Source: Hong et al. 2024, eqs. 6–7.
    """
    _same_shape(chosen_logps, rejected_logps, chosen_lengths, rejected_lengths)
    chosen, rejected = chosen_logps / chosen_lengths, rejected_logps / rejected_lengths
    log_odds_ratio = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    return -chosen - lam * F.logsigmoid(log_odds_ratio)


def sft(logps: Tensor, lengths: Tensor) -> Tensor:
    """Supervised fine-tuning: the mean negative log-prob per token of each completion, (B,) → (B,), nats per token."""
    _same_shape(logps, lengths)
    return -logps / lengths


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 − exp x) for x < 0, stable near 0 (Mächler 2012). x is kept below −1e-6 so that a sure token stays finite."""
    x = x.clamp(max=-1e-6)
    small = x > -0.6931471805599453
    near = (-(x.where(small, -x.new_ones(())).expm1())).log()
    far = (-(x.where(~small, -x.new_ones(())).exp())).log1p()
    return near.where(small, far)
