"""Token-level policy-gradient terms: pure functions on (B, T) with explicit masks."""

from __future__ import annotations

from torch import Tensor


def clipped_surrogate(
    token_logps: Tensor, old_token_logps: Tensor, advantages: Tensor, mask: Tensor, *, clip_eps: float
) -> Tensor:
    """−min(ρ·A, clip(ρ, 1 − ε, 1 + ε)·A) per token, (B, T), to be minimised; masked tokens give 0.

    ρ = exp(token_logps − old_token_logps); `advantages` is (B,), the same for all tokens of a completion; `mask` is 1 on
    completion tokens. Source: PPO, Schulman et al. 2017, eq. 7, per token as in GRPO.
    """
    if token_logps.shape != old_token_logps.shape or token_logps.shape != mask.shape:
        raise ValueError("token_logps, old_token_logps and mask need one shape (B, T)")
    log_ratio = (token_logps - old_token_logps).where(mask.bool(), token_logps.new_zeros(()))
    ratio = log_ratio.exp()
    gain = advantages[:, None]
    worst = (ratio * gain).minimum(ratio.clamp(1 - clip_eps, 1 + clip_eps) * gain)
    return -worst * mask


def kl_k3(token_logps: Tensor, ref_token_logps: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy ‖ reference) per token: exp(d) − d − 1, d = ref − policy. (B, T) → (B, T).

    Never negative; 0 where the two agree. Source: Schulman 2020, as used by GRPO.
    """
    d = ref_token_logps - token_logps
    return d.exp() - d - 1


def sequence_log_ratio(token_logps: Tensor, old_token_logps: Tensor, mask: Tensor) -> Tensor:
    """Mean over a completion's tokens of log-prob − old log-prob, (B, T) → (B,); 0 where `mask` has no token.

    Its exponential is the geometric mean of the token ratios: GSPO's ratio. Source: Zheng et al. 2025, eq. 7; TRL's
    `importance_sampling_level="sequence"`.
    """
    difference = (token_logps - old_token_logps).where(mask.bool(), token_logps.new_zeros(()))
    return difference.sum(-1) / mask.sum(-1).clamp(min=1)


def mean_over_tokens(values: Tensor, mask: Tensor, *, constant: int | None = None) -> Tensor:
    """Token values → one per completion, (…, T) → (…,): their mean, or their sum over a `constant` number of tokens.

    A completion without a token gives 0. The mean is GRPO's (each completion weighs the same); the constant, the longest
    completion allowed, is Dr.GRPO's (each token weighs the same, and length earns nothing). Source: Liu et al. 2025.
    """
    total = values.where(mask.bool(), values.new_zeros(())).sum(-1)
    return total / (mask.sum(-1).clamp(min=1) if constant is None else constant)
