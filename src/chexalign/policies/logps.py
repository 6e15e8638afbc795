"""Shared-prefix scoring: each prompt goes through the model once, whatever the number of its completions.

The model's own forward builds the prefix (image merging, rotary positions, masks), so it is exact for every family; its
key/value cache is then expanded to the prompt's completions, and gradients flow back through the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chexalign.policies.vision_cache import stored_features

CHUNK_TOKENS = 2048  # completion positions whose logits exist at one time


@dataclass
class Prefix:
    """A batch of encoded prompts, left-padded to one length."""

    ids: Tensor  # (B, P)
    mask: Tensor  # (B, P), 1 on prompt tokens
    extra: dict[str, Tensor]  # what else the model's forward wants (pixel_values, image_grid_thw, token_type_ids, …)
    features_stored: bool = False  # pixel_values holds tower features, not pixels

    def to(self, device: torch.device) -> Prefix:
        extra = {k: v.to(device) for k, v in self.extra.items()}
        return Prefix(self.ids.to(device), self.mask.to(device), extra, self.features_stored)


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

    def _map(self, change: Callable[[Tensor], Tensor]) -> Encoded:
        deltas = None if self.deltas is None else change(self.deltas)
        return Encoded(self.cache, change(self.last), change(self.mask), deltas)

    def positions(self, length: int) -> Tensor:
        """Positions of the `length` tokens after `mask`: (N, length), or (3, N, length) for Qwen-VL."""
        positions = self.mask.sum(1, keepdim=True) + torch.arange(length, device=self.mask.device)
        return positions if self.deltas is None else (positions + self.deltas).expand(3, -1, -1)


def inner_model(model: Any) -> tuple[nn.Module, nn.Module]:
    """The model without its head, and the head. Sees through PEFT wrappers."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base.model, base.get_output_embeddings()


def _uses_own_positions(core: Any) -> bool:
    """True for families with 3-D rotary positions (Qwen-VL), which derive them from the image grid themselves."""
    return hasattr(core, "rope_deltas")


def encode_prefix(model: Any, prefix: Prefix) -> Encoded:
    """One forward over the prompts. Left padding is masked and does not count as a position."""
    core, _ = inner_model(model)
    arguments = dict(prefix.extra)
    if not _uses_own_positions(core):
        arguments["position_ids"] = (prefix.mask.cumsum(1) - 1).clamp(min=0)
    with stored_features(core) if prefix.features_stored else nullcontext():
        output = core(input_ids=prefix.ids, attention_mask=prefix.mask, use_cache=True, **arguments)
    deltas = getattr(core, "rope_deltas", None)
    if deltas is not None:
        deltas = deltas.reshape(-1, 1).to(prefix.ids.device)
    return Encoded(output.past_key_values, output.last_hidden_state[:, -1], prefix.mask, deltas)


def completion_logps(model: Any, prefix: Prefix, ids: Tensor, mask: Tensor) -> Tensor:
    """Log-probs of completion tokens, (B·G, T) → (B·G, T), in nats; 0 where `mask` is 0.

    `ids` are right-padded completions, the G of prompt 0 first; G = len(ids) / B. No logits exist at prompt positions.
    """
    core, head = inner_model(model)
    encoded = encode_prefix(model, prefix).expand(len(ids) // len(prefix.ids))
    hidden = encoded.last[:, None]
    if ids.shape[1] > 1:
        output = core(
            input_ids=ids[:, :-1],
            attention_mask=torch.cat([encoded.mask, mask[:, :-1]], dim=1),
            past_key_values=encoded.cache,
            position_ids=encoded.positions(ids.shape[1] - 1),
            use_cache=True,
        )
        hidden = torch.cat([hidden, output.last_hidden_state], dim=1)
    return _token_logps(head, hidden, ids) * mask


def _token_logps(head: nn.Module, hidden: Tensor, ids: Tensor) -> Tensor:
    """log softmax of the head's logits at `ids`, (N, T, H), (N, T) → (N, T), a few rows at a time, in fp32."""
    rows = max(1, CHUNK_TOKENS // ids.shape[1])
    parts = []
    for h, target in zip(hidden.split(rows), ids.split(rows), strict=True):
        logits = head(h).float()
        parts.append(-F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target))
    return torch.cat(parts)


class Scorer(nn.Module):
    """The scoring pass as a module, so that Accelerate can wrap it and synchronise its gradients."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.compute_dtype: torch.dtype | None = None  # of matrix products, where it is not the weights'

    def forward(self, prefix: Prefix, ids: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(ids.device.type, self.compute_dtype, enabled=self.compute_dtype is not None):
            return completion_logps(self.model, prefix, ids, mask)
