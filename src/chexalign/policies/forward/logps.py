"""Shared-prefix scoring: each prompt goes through the model once, whatever the number of its completions.

The model's own forward builds the prefix (image merging, rotary positions, masks), so it is exact for every family; its
key/value cache is then expanded to the prompt's completions, and gradients flow back through the cache. A model without
such a cache (recurrent state) takes the plain path of unshared.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from chexalign.policies.forward import unshared
from chexalign.policies.forward.cache_name import cache_name
from chexalign.policies.forward.head import Head
from chexalign.policies.forward.layers import checkpointed, last_token_only
from chexalign.policies.forward.tower_features import with_encoder_outputs
from chexalign.policies.forward.unwrap import base_model, core_model

CHUNK_LOGITS = 1 << 26  # logits that exist at one time (fp32: 256 MiB)


@dataclass
class Prefix:
    """A batch of encoded prompts, left-padded to one length."""

    ids: Tensor  # (B, P)
    mask: Tensor  # (B, P), 1 on prompt tokens
    extra: dict[str, Tensor]  # what else the forward wants (pixel_values, image_grid_thw, …), and stored tower features

    def to(self, device: torch.device) -> Prefix:
        """A copy on `device`; copies from pinned memory do not wait."""
        extra = {k: v.to(device, non_blocking=True) for k, v in self.extra.items()}
        ids, mask = (x.to(device, non_blocking=True) for x in (self.ids, self.mask))
        return Prefix(ids, mask, extra)


@dataclass
class Encoded:
    """A batch after its prefix pass."""

    cache: Any  # key/value cache over P positions
    last: Tensor  # (B, H), hidden state at the last prompt token: it predicts the first completion token
    mask: Tensor  # (B, P)
    deltas: Tensor | None = None  # (B, 1): what Qwen-VL's 3-D positions add to a token's index, from the image grid

    def expand(self, repeats: int) -> Encoded:
        """Each prompt `repeats` times, side by side: (B, …) → (B·repeats, …)."""
        self.cache.batch_repeat_interleave(repeats)
        return self._map(lambda x: x.repeat_interleave(repeats, dim=0))

    def select(self, rows: Tensor) -> Encoded:
        """Only the given rows."""
        self.cache.batch_select_indices(rows)
        return self._map(lambda x: x[rows])

    def copy(self) -> Encoded:
        """The same prompts on a cache of their own, detached: what is read from now on leaves this one as it is."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        for layer in cache.layers:
            if layer.keys is not None:
                layer.keys, layer.values = layer.keys.detach(), layer.values.detach()
        return Encoded(cache, self.last.detach(), self.mask, self.deltas)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Encoded:
        deltas = None if self.deltas is None else change(self.deltas)
        return Encoded(self.cache, change(self.last), change(self.mask), deltas)

    def positions(self, length: int) -> Tensor:
        """Positions of the `length` tokens after `mask`: (N, length), or (3, N, length) for Qwen-VL."""
        positions = self.mask.sum(1, keepdim=True) + torch.arange(length, device=self.mask.device)
        return positions if self.deltas is None else (positions + self.deltas).expand(3, -1, -1)

    def read(self, model: Any, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states of more tokens, (N, T) → (N, T, H); they join the cache."""
        core, _ = inner_model(model)
        positions = self.positions(ids.shape[1])
        self.mask = torch.cat([self.mask, mask], dim=1)
        held = {str(cache_name(core)): self.cache}
        return core(
            input_ids=ids, attention_mask=self.mask, position_ids=positions, use_cache=True, **held
        ).last_hidden_state


def inner_model(model: Any) -> tuple[Any, Head]:
    """The model without its head, and the head. Sees through PEFT wrappers."""
    return core_model(model), Head(base_model(model))


def _uses_own_positions(core: Any) -> bool:
    """True for families with 3-D rotary positions (Qwen-VL), which derive them from the image grid themselves."""
    return hasattr(core, "rope_deltas")


def encode_prefix(model: Any, prefix: Prefix, checkpointing: bool = False) -> Encoded | unshared.Plain:
    """One forward over the prompts. Left padding is masked and does not count as a position."""
    core, _ = inner_model(model)
    if not unshared.can_share(model):
        return unshared.encode(model, prefix)
    arguments = with_encoder_outputs(core, prefix.extra)
    own, grids = _uses_own_positions(core), "image_grid_thw" in prefix.extra
    if not (own and grids):
        positions = (prefix.mask.cumsum(1) - 1).clamp(min=0)
        arguments["position_ids"] = positions.expand(3, -1, -1) if own else positions
    with ExitStack() as stack:
        stack.enter_context(last_token_only(core))
        stack.enter_context(checkpointed(core, keep_cache=True) if checkpointing else nullcontext())
        output = core(input_ids=prefix.ids, attention_mask=prefix.mask, use_cache=True, **arguments)
    deltas = None
    if own:  # a batch without images leaves those of an earlier one in place
        found = core.rope_deltas if grids else torch.zeros(len(prefix.ids), dtype=torch.long)
        deltas = found.reshape(-1, 1).to(prefix.ids.device)
    return Encoded(output[cache_name(core)], output.last_hidden_state[:, -1], prefix.mask, deltas)


@dataclass(frozen=True)
class Scoring:
    """How completions are scored."""

    kl_completions: int = 0  # of every prompt the last so many are scored without gradient, on the same prefix pass
    checkpointing: bool = False  # recompute activations in the backward pass
    temperature: float = 1.0  # the logits are divided by it: log-probs of what was drawn at that temperature


def completion_logps(model: Any, prefix: Prefix, ids: Tensor, mask: Tensor, how: Scoring = Scoring()) -> Tensor:
    """Log-probs of completion tokens, (B·G, T) → (B·G, T), in nats; 0 where `mask` is 0.

    `ids` are right-padded completions, the G of prompt 0 first; G = len(ids) / B. No logits exist at prompt positions.
    """
    encoded = encode_prefix(model, prefix, how.checkpointing)
    prompts, length, kl_completions = len(prefix.ids), ids.shape[1], how.kl_completions
    if not kl_completions:
        return _score(model, encoded.expand(len(ids) // prompts), ids, mask, how)
    ids, mask = (x.view(prompts, -1, length) for x in (ids, mask))
    learnt = ids.shape[1] - kl_completions
    with torch.no_grad():
        without = _score(
            model,
            encoded.copy().expand(kl_completions),
            ids[:, learnt:].flatten(0, 1),
            mask[:, learnt:].flatten(0, 1),
            replace(how, checkpointing=False),
        )
    parts = [without.view(prompts, kl_completions, length)]
    if learnt:
        scored = _score(
            model, encoded.expand(learnt), ids[:, :learnt].flatten(0, 1), mask[:, :learnt].flatten(0, 1), how
        )
        parts.insert(0, scored.view(prompts, learnt, length))
    return torch.cat(parts, dim=1).flatten(0, 1)


def _score(model: Any, encoded: Any, ids: Tensor, mask: Tensor, how: Scoring) -> Tensor:
    core, head = inner_model(model)
    hidden = encoded.last[:, None]
    if ids.shape[1] > 1:
        with checkpointed(core, keep_cache=False) if how.checkpointing else nullcontext():
            hidden = torch.cat([hidden, encoded.read(model, ids[:, :-1], mask[:, :-1])], dim=1)
    return _token_logps(head, hidden, ids, how.temperature) * mask


def _token_logps(head: Head, hidden: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """log softmax of the head's logits over the temperature at `ids`, (N, T, H), (N, T) → (N, T), in fp32.

    Where all the logits would be more than CHUNK_LOGITS, they exist a chunk at a time, in the backward pass too.
    """
    flat, targets = hidden.flatten(0, 1), ids.flatten()
    size = max(1, CHUNK_LOGITS // head.out_features)
    if len(flat) <= size:
        return _logps_of(head, flat, targets, temperature).view_as(ids)
    parts = [
        checkpoint(_logps_of, head, h, t, temperature, use_reentrant=False)
        for h, t in zip(flat.split(size), targets.split(size), strict=True)
    ]
    return torch.cat(parts).view_as(ids)


def _logps_of(head: Head, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    logits = head(hidden).float()
    return -F.cross_entropy(logits if temperature == 1.0 else logits / temperature, targets, reduction="none")


class Scorer(nn.Module):
    """The scoring pass as a module, so that Accelerate can wrap it and synchronise its gradients."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.compute_dtype: torch.dtype | None = None  # of matrix products, where it is not the weights'
        self.checkpointing = False  # recompute activations in the backward pass: less memory, about a third more time
        self.temperature = 1.0  # the logits are divided by it: log-probs of what was drawn at that temperature

    @contextmanager
    def at(self, temperature: float) -> Iterator[None]:
        """Inside, log-probs are those at this temperature."""
        before = self.temperature
        self.temperature = temperature
        try:
            yield
        finally:
            self.temperature = before

    def computing(self) -> AbstractContextManager[None]:
        """The one context of every forward pass of the policy: matrix products in `compute_dtype`, weights as they are."""
        device = next(self.model.parameters()).device
        return torch.autocast(device.type, self.compute_dtype, enabled=self.compute_dtype is not None)

    def forward(self, prefix: Prefix, ids: Tensor, mask: Tensor, kl_completions: int = 0) -> Tensor:
        """Log-probs of `ids` after their prompts, as `completion_logps` gives them. Checkpointing only where gradients flow."""
        checkpointing = self.checkpointing and torch.is_grad_enabled()
        with self.computing():
            how = Scoring(kl_completions, checkpointing, self.temperature)
            return completion_logps(self.model, prefix, ids, mask, how)
