"""Sampling several completions of one prompt without copying the prompt's keys and values for each of them.

An expanded cache is read whole for every new token of every sample, and copied whole to make room for it. Here the prompt's
keys are one matrix for all of its samples, and each sample has a buffer for what it adds itself. Same attention, less memory
to move: softmax over [q·K_prompt, q·K_own], each part as one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer

from chexalign.policies.forward.cache_name import cache_name
from chexalign.policies.forward.layers import decoder_layers, replaced
from chexalign.policies.forward.logps import Encoded, inner_model
from chexalign.policies.forward.unshared import Plain

NAME = "chexalign_branches"
BLOCK = 64  # tokens by which a buffer grows
UNKNOWN = ("softcap", "position_bias", "s_aux", "sliding_window")  # arguments of attention that would change it


class _Layer(DynamicLayer):
    """One layer's keys and values: the prompts', (B, K, P, D), and each sample's own, (N, K, T, D)."""

    def __init__(self, slot: Any, rows: int):
        super().__init__()
        self.prompt: tuple[Tensor, ...] = (slot.keys, slot.values)
        self.own: tuple[Tensor, ...] = tuple(x.new_empty(rows, x.shape[1], BLOCK, x.shape[3]) for x in self.prompt)
        self.length = 0
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add a token to every sample. Returns the samples' own keys and values so far."""
        start, self.length = self.length, self.length + key_states.shape[2]
        if self.length > self.own[0].shape[2]:  # twice the room
            self.own = tuple(torch.cat([x, torch.empty_like(x)], dim=2) for x in self.own)
        for buffer, new in zip(self.own, (key_states, value_states), strict=True):
            buffer[:, :, start : self.length] = new
        return self.own[0][:, :, : self.length], self.own[1][:, :, : self.length]

    def get_seq_length(self) -> int:
        return self.prompt[0].shape[2] + self.length


class Branches(Cache):
    """A batch of n samples of each of B prompts, one token at a time. Serves as the model's key/value cache."""

    def __init__(self, encoded: Encoded, n: int):
        self.parts = [_Layer(slot, len(encoded.mask) * n) for slot in encoded.cache.layers]
        super().__init__(layers=[*self.parts])
        self.last = encoded.last.repeat_interleave(n, dim=0)
        self.mask = encoded.mask  # (B, P)
        self.deltas = encoded.deltas
        self.prompts = torch.arange(len(self.mask), device=self.mask.device).repeat_interleave(n)  # (N,), ascending
        self._lay_out()

    def _lay_out(self) -> None:
        """`rows` (B, M): each prompt's samples, the first again where it has fewer than M. `back` (N,) finds them there."""
        counts = torch.bincount(self.prompts, minlength=len(self.mask))
        place = torch.arange(int(counts.max()), device=self.mask.device)
        first = counts.cumsum(0) - counts
        self.most = len(place)
        self.even = bool((counts == len(place)).all())
        self.rows = first[:, None] + torch.where(place < counts[:, None], place, 0)
        order = torch.arange(len(self.prompts), device=self.mask.device)
        self.back = self.prompts * len(place) + order - first[self.prompts]
        self.bias = None if self.mask.all() else torch.where(self.mask == 0, -torch.inf, 0.0)[:, None, None]

    def select(self, rows: Tensor) -> Branches:
        """Only the given samples, in ascending order; prompts without one are let go of."""
        kept, self.prompts = self.prompts[rows].unique_consecutive(return_inverse=True)
        for layer in self.parts:
            layer.own = tuple(x[rows] for x in layer.own)
            if len(kept) < len(self.mask):
                layer.prompt = tuple(x[kept] for x in layer.prompt)
        self.mask = self.mask[kept]
        self.deltas = None if self.deltas is None else self.deltas[kept]
        self._lay_out()
        return self

    def beside(self, values: Tensor) -> Tensor:
        """(N, K, R, X) → (B, K, M·R, X): the samples of a prompt side by side."""
        _, groups, each, width = values.shape
        laid = values if self.even else values[self.rows.flatten()]
        laid = laid.reshape(-1, self.most, groups, each, width).transpose(1, 2)
        return laid.reshape(len(self.mask), groups, self.most * each, width)

    def apart(self, values: Tensor, like: Tensor) -> Tensor:
        """Back again, (B, K, M·R, X) → (N, K, R, X), K and R being those of `like`."""
        _, groups, each, _ = like.shape
        laid = values.view(len(self.mask), groups, self.most, each, -1).transpose(1, 2).flatten(0, 1)
        return laid if self.even else laid[self.back]

    def read(self, model: Any, ids: Tensor, _mask: Tensor) -> Tensor:
        """Hidden states of one more token of every sample, (N, 1) → (N, 1, H)."""
        core, _ = inner_model(model)
        positions = (self.mask.sum(1) + self.parts[0].length)[self.prompts, None]
        if self.deltas is not None:  # Qwen-VL's 3-D positions
            positions = (positions + self.deltas[self.prompts]).expand(3, -1, -1)
        with _attending(core, self):
            held = {str(cache_name(core)): self}
            return core(input_ids=ids, position_ids=positions, use_cache=True, **held).last_hidden_state


def branch(model: Any, encoded: Encoded | Plain, n: int) -> Branches | None:
    """n samples of each prompt, or None for a model whose attention is not known to be the plain one."""
    core, _ = inner_model(model)
    if isinstance(encoded, Plain) or not decoder_layers(core):
        return None
    if any(type(slot) is not DynamicLayer for slot in encoded.cache.layers):  # sliding windows, recurrent states
        return None
    attentions = [getattr(layer, "self_attn", None) for layer in decoder_layers(core)]
    plain = all(
        hasattr(a, "layer_idx") and getattr(getattr(a, "config", None), "_attn_implementation", None) == "sdpa"
        for a in attentions
    )
    return Branches(encoded, n) if plain else None


# ---- attention

_current: ContextVar[Branches] = ContextVar("branches")


@contextmanager
def _attending(core: Any, branches: Branches) -> Iterator[None]:
    token = _current.set(branches)
    configs = {id(layer.self_attn.config): layer.self_attn.config for layer in decoder_layers(core)}
    try:
        with ExitStack() as stack:
            for config in configs.values():
                stack.enter_context(replaced(config, _attn_implementation=NAME))
            yield
    finally:
        _current.reset(token)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, scaling: float | None = None, **named: Any
) -> tuple[Tensor, None]:
    """(N, H, 1, D) queries of one token on their prompt and on (N, K, T, D) own keys and values → (N, 1, H, D)."""
    if odd := [name for name in UNKNOWN if named.get(name) is not None]:
        raise ValueError(f"{type(module).__name__} gives its attention {odd[0]}, which sampling does not know")
    branches = _current.get()
    keys, values = branches.parts[module.layer_idx].prompt
    total, heads, _one, width = query.shape
    groups, before = key.shape[1], keys.shape[2]
    query = query.view(total, groups, heads // groups, width) * (width**-0.5 if scaling is None else scaling)
    scores = branches.beside(query) @ keys.transpose(2, 3)
    if branches.bias is not None:
        scores = scores + branches.bias
    own = query @ key.transpose(2, 3)
    weights = torch.cat([branches.apart(scores, own), own], dim=-1).softmax(-1, torch.float32).to(value.dtype)
    mixed = weights[..., before:] @ value
    found = branches.apart(branches.beside(weights[..., :before]) @ values, mixed) + mixed
    return found.reshape(total, 1, heads, -1), None


AttentionInterface.register(NAME, _attention)
