"""Shared-prefix sampling: each prompt is encoded once and its cache serves all of its samples.

Every sample has its own stream of random numbers, so a report does not depend on which other studies share its batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chexalign.policies.forward.layers import decoder_layers
from chexalign.policies.forward.logps import Prefix, encode_prefix, inner_model
from chexalign.policies.forward.onednn_linear import packed
from chexalign.policies.forward.shared_prompt_cache import branch
from chexalign.policies.forward.unshared import Plain

KEEP_SHARE = 0.5  # finished rows leave the batch when fewer than this share are still running


@dataclass(frozen=True)
class Sampled:
    """One completion. `logp` sums log π(token) at temperature 1 over `tokens`, in nats, whatever it was sampled at."""

    tokens: tuple[int, ...]
    logp: float
    finish_reason: str  # "stop" or "length"
    token_logps: tuple[float, ...] = ()  # what `logp` sums, one per token


@dataclass(frozen=True)
class SamplingSettings:
    """How completions are drawn. Ids from `allowed` on are never drawn: many embeddings outgrow their tokenizer."""

    n: int  # completions per prompt
    temperature: float  # 0 takes the most likely token
    top_p: float
    max_new_tokens: int
    stop_ids: frozenset[int]
    allowed: int | None = None


def stream_seed(seed: int, *parts: object) -> int:
    """A 63-bit seed from the run's seed and what names the stream (a study id, a sample index)."""
    text = "\x1f".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def _uniforms(seeds: Sequence[int], n: int, length: int) -> Tensor:
    """(len(seeds)·n, length) uniform numbers; row (prompt i, sample j) depends on (seeds[i], j) alone."""
    rows = []
    for seed in seeds:
        for j in range(n):
            generator = torch.Generator().manual_seed(stream_seed(seed, "sample", j))
            rows.append(torch.rand(length, generator=generator, dtype=torch.float64))
    return torch.stack(rows)


def pick(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """Inverse-CDF sampling, (N, V), (N,) → (N,); temperature 0 takes the most likely token."""
    if temperature == 0:
        return logits.argmax(-1)
    probs = (logits.double() / temperature).softmax(-1)
    if top_p < 1:
        ordered, order = probs.sort(dim=-1, descending=True, stable=True)
        beyond = ordered.cumsum(-1) - ordered >= top_p
        probs = probs.scatter(-1, order, ordered.masked_fill(beyond, 0.0))
    cumulative = probs.cumsum(-1)
    point = uniforms[:, None].to(cumulative.device) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, point, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


@torch.no_grad()
def sample(
    model: Any,
    prefix: Prefix,
    seeds: Sequence[int],
    settings: SamplingSettings,
) -> list[list[Sampled]]:
    """n completions for each of the B prompts. Raises ValueError when the seeds do not match the prompts.

    `logp` is the model's own over the whole vocabulary, also where `settings.allowed` leaves ids out.
    """
    n, max_new_tokens = settings.n, settings.max_new_tokens
    if len(seeds) != len(prefix.ids):
        raise ValueError(f"{len(seeds)} seeds for {len(prefix.ids)} prompts")
    core, head = inner_model(model)
    encoded = encode_prefix(model, prefix)
    state: Any = branch(model, encoded, n) or encoded.expand(n)
    total, device = len(prefix.ids) * n, prefix.ids.device
    uniforms = _uniforms(seeds, n, max_new_tokens)
    tokens = torch.zeros(total, max_new_tokens, dtype=torch.long, device=device)
    logps = torch.zeros(total, max_new_tokens, dtype=torch.float64, device=device)
    lengths = torch.zeros(total, dtype=torch.long, device=device)
    stopped = torch.zeros(total, dtype=torch.bool, device=device)
    stops = torch.tensor(sorted(settings.stop_ids), device=device)
    rows, running = torch.arange(total, device=device), torch.ones(total, dtype=torch.bool, device=device)
    hidden = state.last
    with packed([] if isinstance(encoded, Plain) else [*decoder_layers(core), head], total):
        for step in range(max_new_tokens):
            logits = head(hidden).float()
            allowed = logits[:, : settings.allowed]
            token = pick(allowed, uniforms[rows.cpu(), step], settings.temperature, settings.top_p)
            gain = logits.log_softmax(-1).gather(1, token[:, None])[:, 0].double()
            alive = rows[running]
            tokens[alive, step], lengths[alive] = token[running], step + 1
            logps[alive, step] = gain[running]
            ended = running & torch.isin(token, stops)
            stopped[rows[ended]] = True
            running = running & ~ended
            if step + 1 == max_new_tokens or not running.any():
                break
            if running.float().mean() < KEEP_SHARE:
                keep = running.nonzero()[:, 0]
                state = state.select(keep)
                rows, token, running = rows[keep], token[keep], running[keep]
            hidden = state.read(model, token[:, None], prefix.mask.new_ones(len(rows), 1))[:, -1]
    return _collect(tokens, lengths, logps, stopped, n)


def _collect(tokens: Tensor, lengths: Tensor, logps: Tensor, stopped: Tensor, n: int) -> list[list[Sampled]]:
    flat = [
        Sampled(tuple(row[:length]), sum(values[:length]), "stop" if stop else "length", tuple(values[:length]))
        for row, length, values, stop in zip(
            tokens.tolist(), lengths.tolist(), logps.tolist(), stopped.tolist(), strict=True
        )
    ]
    return [flat[i : i + n] for i in range(0, len(flat), n)]
