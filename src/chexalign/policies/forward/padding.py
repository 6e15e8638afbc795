"""Prompts and reports of different lengths in one batch: prompts are padded on the left, reports on the right."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from chexalign.policies.forward.logps import Prefix

SEQUENCE_INPUTS = ("token_type_ids", "mm_token_type_ids")  # processor outputs that have one entry per token


def left_padded(items: Sequence[dict[str, Tensor]], pad: int) -> Prefix:
    """Processor outputs of one prompt each, (1, L) → one batch (B, longest L). Images follow each other."""
    longest = max(i["input_ids"].shape[1] for i in items)
    ids = torch.cat([left_pad(i["input_ids"], longest, pad) for i in items])
    mask = torch.cat([left_pad(i["attention_mask"], longest, 0) for i in items])
    extra: dict[str, Tensor] = {}
    for name in dict.fromkeys(k for i in items for k in i if k not in ("input_ids", "attention_mask")):
        parts = [i[name] for i in items if name in i]
        if name in SEQUENCE_INPUTS:
            parts = [left_pad(p, longest, 0) for p in parts]
        extra[name] = torch.cat(same_tiles(parts))
    return Prefix(ids, mask, extra)


def right_padded(completions: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids of N reports → ids and mask, both (N, longest), on the CPU."""
    longest = max(map(len, completions))
    ids = torch.zeros(len(completions), longest, dtype=torch.long)
    mask = torch.zeros(len(completions), longest, dtype=torch.long)
    for row, tokens in enumerate(completions):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return ids, mask


def same_tiles(parts: list[Tensor]) -> list[Tensor]:
    """Zero tiles after a study's own, (rows, tiles, …) → the most tiles of all; models with tiled images skip those."""
    if parts[0].dim() < 4:
        return parts
    most = max(p.shape[1] for p in parts)
    return [nn.functional.pad(p, (0, 0) * (p.dim() - 2) + (0, most - p.shape[1])) for p in parts]


def left_pad(row: Tensor, length: int, value: int) -> Tensor:
    """(1, T) → (1, `length`), `value` on the left, so that every prompt ends at the same place."""
    return nn.functional.pad(row, (length - row.shape[1], 0), value=value)
