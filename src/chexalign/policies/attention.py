"""Where a policy looks while it writes: the decoder's attention from each token of a report to the patches of its images.

The plain forward over prompt and report, with transformers' eager attention switched on for its length: the only one that
gives weights. Of each layer only what is asked for is kept, so that memory does not grow with the depth. Attention is not
an explanation (docs/use/grounding.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Gemma3Model, LlavaModel, PreTrainedModel, Qwen2_5_VLModel, Qwen3VLModel

from chexalign.data.images import load_image
from chexalign.errors import WorkError
from chexalign.policies.forward.layers import decoder_layers
from chexalign.policies.forward.logps import Prefix, inner_model
from chexalign.policies.forward.padding import SEQUENCE_INPUTS
from chexalign.policies.forward.tower_features import with_encoder_outputs
from chexalign.policies.forward.unwrap import base_model
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt

SQUARE, GRIDS = (LlavaModel, Gemma3Model), (Qwen2_5_VLModel, Qwen3VLModel)


class NoMap(WorkError):
    """This policy's attention cannot be laid over its images; the message says what is missing."""


@torch.no_grad()
def image_attention(
    policy: Policy, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]], layers: Sequence[int] | None = None
) -> list[list[Tensor]]:
    """One completion per prompt → for each prompt, for each of its images, a tensor (T, rows, columns), fp32 on the CPU.

    Entry (t, y, x) is the attention to patch (y, x) from the position that predicts token t, averaged over the heads of
    the layers (counted from 0; all when absent). A position's weights over all that it can see sum to 1, so those over
    its images to less. Raises NoMap for a model whose image tokens are not known to be a grid.
    """
    core, _ = inner_model(policy.model)
    chosen = range(len(decoder_layers(core))) if layers is None else layers
    prefix, image = policy.encode(prompts), image_token(policy)
    if image is None:
        raise NoMap(f"{type(core).__name__} sees no image")
    if any(image in tokens for tokens in completions):
        raise NoMap("a report holds the token that stands for an image")
    ids, mask = policy.pad_completions(completions)
    grids = image_grids(policy, prefix, prompts)
    with policy.scorer.computing(), _eager(policy.model), _rows_kept(core, chosen, prefix.ids.shape[1]) as kept:
        _read(core, prefix, ids, mask)
    weights = torch.stack(kept).mean(0).cpu()  # (B, T, P)
    found, first = [], 0
    for row, (prompt, tokens) in enumerate(zip(prompts, completions, strict=True)):
        columns = (prefix.ids[row] == image).cpu()
        flat, own = weights[row, : len(tokens), columns], grids[first : first + len(prompt.images)]
        found.append(_on_grids(flat, own))
        first += len(prompt.images)
    return found


def _read(core: Any, prefix: Prefix, ids: Tensor, mask: Tensor) -> None:
    """The plain forward over left-padded prompts and right-padded reports, the last token left out: it predicts nothing."""
    whole = torch.cat([prefix.mask, mask[:, :-1]], dim=1)
    arguments = with_encoder_outputs(core, prefix.extra)
    for name in SEQUENCE_INPUTS:
        if name in arguments:
            arguments[name] = F.pad(arguments[name], (0, whole.shape[1] - prefix.ids.shape[1]))
    if not isinstance(core, GRIDS):  # those derive them from the image grid
        arguments["position_ids"] = (whole.cumsum(1) - 1).clamp(min=0)
    core(input_ids=torch.cat([prefix.ids, ids[:, :-1]], 1), attention_mask=whole, use_cache=False, **arguments)


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Inside, every part computes attention the eager way; afterwards each as before."""
    base = base_model(model)
    parts = {id(m.config): m.config for m in base.modules() if isinstance(m, PreTrainedModel)}
    before = [(config, config._attn_implementation) for config in parts.values()]
    try:
        base.set_attn_implementation("eager")
        yield
    finally:
        for config, name in before:
            config._attn_implementation_internal = name  # the public name would set the parts' too


@contextmanager
def _rows_kept(core: Any, layers: Sequence[int], prompt: int) -> Iterator[list[Tensor]]:
    """Inside, each named layer leaves its weights here, (B, T, P): mean over heads, from report positions to the prompt."""
    kept: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if not isinstance(weights, Tensor) or weights.dim() != 4:
            raise NoMap(f"{type(core).__name__}: its attention layers give no weights, even computed eagerly")
        kept.append(weights[:, :, prompt - 1 :, :prompt].float().mean(1))

    with ExitStack() as stack:
        for index in layers:
            attention = getattr(decoder_layers(core)[index], "self_attn", None)
            if attention is None:
                raise NoMap(f"{type(core).__name__}: decoder layer {index} has no attention of its own")
            stack.callback(attention.register_forward_hook(keep).remove)
        yield kept


# ---- tokens → patches


def image_token(policy: Policy) -> int | None:
    """The id that holds an image's place; None for a model that sees none."""
    return getattr(inner_model(policy.model)[0].config, "image_token_id", None)


def image_grids(policy: Policy, prefix: Prefix, prompts: Sequence[Prompt]) -> list[tuple[int, int]]:
    """(rows, columns) of the patch grid of every image of the batch, in order. Raises NoMap where there is none."""
    core, _ = inner_model(policy.model)
    if not isinstance(core, (*SQUARE, *GRIDS)):
        raise NoMap(
            f"{type(core).__name__}: how its image tokens lie on the image is not known; maps can be drawn for "
            + ", ".join(kind.__name__ for kind in (*SQUARE, *GRIDS))
        )
    if isinstance(core, GRIDS):
        merge = core.visual.spatial_merge_size
        return [(int(h) // merge, int(w) // merge) for _, h, w in prefix.extra["image_grid_thw"]]
    grids = []
    for row, prompt in zip(prefix.ids, prompts, strict=True):
        _check_whole(policy, prompt)
        count = int((row == image_token(policy)).sum())
        side = math.isqrt(count // max(1, len(prompt.images)))
        if side * side * len(prompt.images) != count:
            raise NoMap(
                f"{type(core).__name__}: {count} image tokens for {len(prompt.images)} images are no square grids"
            )
        grids += [(side, side)] * len(prompt.images)
    return grids


def _check_whole(policy: Policy, prompt: Prompt) -> None:
    """Raises NoMap where the image processor cuts a part away: the grid would not span the image."""
    if getattr(policy.processor.image_processor, "do_center_crop", False):
        for path in prompt.images:
            width, height = load_image(prompt.root, path).size
            if width != height:
                raise NoMap(
                    f"{prompt.root / path} is {width}×{height} and the processor crops it to a square; pad it first"
                )


def _on_grids(flat: Tensor, grids: Sequence[tuple[int, int]]) -> list[Tensor]:
    """(T, tokens) → per image (T, rows, columns)."""
    parts = flat.split([rows * columns for rows, columns in grids], dim=1)
    return [part.unflatten(1, grid) for part, grid in zip(parts, grids, strict=True)]
