"""The fast path proves itself: on one real study it is compared with the model's own forward pass before it is used.

Compared are the log-probs of a report with stored features on a shared prefix, those that the sampler gives its own tokens,
and the gradients that flow through all of it. Where they differ, the policy takes the plain path from then on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chexalign.policies.forward.layers import decoder_layers
from chexalign.policies.forward.tower_features import can_store, projectors
from chexalign.policies.forward.unshared import takes_plain_path
from chexalign.policies.forward.unwrap import base_model, core_model
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt

VALUES, GRADIENTS = 1e-3, 1e-2  # nats per token; share of the gradient's length, in float32 — our choice
VALUES_16, GRADIENTS_16 = 0.25, 0.25  # the same where products are in 16 bits — our choice
LONGEST, DRAWN = 32, 8  # tokens of the report that are compared, and of the sample
_BREAKS = (TypeError, ValueError, AttributeError, KeyError, IndexError, RuntimeError)  # how changed internals show


def disagreement(policy: Policy, prompt: Prompt, tokens: tuple[int, ...], stored: bool = True) -> str | None:
    """What sets the fast path apart from the model's own forward on this prompt; None where they agree.

    `stored`: with stored features, where the family has them; otherwise shared prompts and the sampler alone.
    The policy's settings and weights are as before afterwards.
    """
    model, tokens = policy.model, tokens[:LONGEST]
    narrow = policy.scorer.compute_dtype is not None or next(model.parameters()).dtype != torch.float32
    values, share = (VALUES_16, GRADIENTS_16) if narrow else (VALUES, GRADIENTS)
    reused, policy.reuse_features = policy.reuse_features, False
    try:
        plain_prefix = policy.encode([prompt])
        policy.reuse_features = stored and can_store(core_model(model))
        watched = _watched(model)
        flags = [p.requires_grad for p in watched]
        for parameter in watched:
            parameter.requires_grad_(True)
        try:
            own = _own_logps(policy, plain_prefix, tokens)
            wanted = torch.autograd.grad(own.sum(), watched, allow_unused=True)
            fast = policy.token_logps([prompt], [[tokens]])[0][0]
            found = torch.autograd.grad(fast.sum(), watched, allow_unused=True)
        finally:
            for parameter, flag in zip(watched, flags, strict=True):
                parameter.requires_grad_(flag)
        with torch.no_grad():
            drawn = policy.generate([prompt], 1, 1.0, DRAWN)[0][0] if policy.engine is None else None
            sampled = (
                0.0 if drawn is None else _apart(drawn.token_logps, _own_logps(policy, plain_prefix, drawn.tokens))
            )
    except _BREAKS as error:
        return f"it fails: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
    finally:
        policy.reuse_features = reused
        policy.encoder.forget()
    gaps = {
        "log-probs": (float((own - fast).detach().abs().max()), values),
        "the sampler's log-probs": (sampled, values),
    }
    gaps["gradients"] = _gradient_gap(wanted, found), share
    wrong = [f"{name} by {gap:.2g} (allowed {most:g})" for name, (gap, most) in gaps.items() if not gap <= most]
    return f"it is off in {', '.join(wrong)}" if wrong else None


def take_plain_path(policy: Policy, share: bool = False) -> None:
    """From now on no feature is stored and, unless `share`, no prompt shared: each report is read with its own."""
    policy.encoder.never_reuse = True
    takes_plain_path(base_model(policy.model), not share)


def _own_logps(policy: Policy, prefix: Any, tokens: tuple[int, ...]) -> Tensor:
    """log π of the tokens by the model's whole forward over prompt and report, (T,), in nats."""
    new = torch.tensor([tokens], device=prefix.ids.device)
    extra = {
        k: torch.cat([v, v.new_zeros(1, len(tokens))], 1) if v.shape == prefix.ids.shape else v
        for k, v in prefix.extra.items()
    }
    scorer = policy.scorer
    with torch.autocast(new.device.type, scorer.compute_dtype, enabled=scorer.compute_dtype is not None):
        logits = policy.model(
            input_ids=torch.cat([prefix.ids, new], 1),
            attention_mask=torch.cat([prefix.mask, torch.ones_like(new)], 1),
            use_cache=False,
            **extra,
        ).logits
    return logits[0, -len(tokens) - 1 : -1].float().log_softmax(-1).gather(1, new[0][:, None])[:, 0]


def _watched(model: Any) -> list[Tensor]:
    """Parameters whose gradients pass through all the rest: the projector's and the first decoder layer's."""
    core = core_model(model)
    modules = [*(projectors(core) if can_store(core) else ()), *decoder_layers(core)[:1]]
    return [p for m in modules for p in m.parameters() if p.is_floating_point()] or [next(model.parameters())]


def _apart(found: Any, own: Tensor) -> float:
    return float((torch.tensor(found, device=own.device) - own).abs().max())


def _gradient_gap(wanted: Any, found: Any) -> float:
    """‖found − wanted‖ / ‖wanted‖ over all parameters that have either."""
    pairs = [(w, f) for w, f in zip(wanted, found, strict=True) if w is not None or f is not None]
    full = [(torch.zeros_like(f) if w is None else w, torch.zeros_like(w) if f is None else f) for w, f in pairs]
    length = sum(float(w.double().square().sum()) for w, _ in full) ** 0.5
    apart = sum(float((w.double() - f.double()).square().sum()) for w, f in full) ** 0.5
    return apart / length if length else apart
