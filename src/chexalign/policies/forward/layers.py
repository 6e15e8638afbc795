"""Two exact savings inside the decoder, switched on for one forward pass: neither changes a value or a gradient.

`last_token_only`: of a prompt, the last layer need only give keys and values, and the hidden state of the last token.
`checkpointed`: a layer's activations are computed again in the backward pass, with the key/value cache kept (transformers'
own gradient checkpointing drops the cache).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from inspect import ismethod
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from chexalign.errors import RecipeError
from chexalign.policies.forward.cache_name import name_among

NO_ATTENTION = "chexalign_no_attention"
_CANNOT = "train.gradient_checkpointing: not known how to do it for {}; set it to false"


def _no_attention(module: Any, query: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    """What takes the place of attention where only keys and values are wanted: zeros of the right shape, at no cost."""
    batch, heads, length, width = query.shape
    return query.new_zeros(1).expand(batch, length, heads, width), None


AttentionInterface.register(NO_ATTENTION, _no_attention)


class _Zeros(nn.Module):
    """A projection whose result is not needed: zeros, at no cost."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden.new_zeros(1).expand(*hidden.shape[:-1], self.width)


def decoder_layers(core: Any) -> Any:
    """The decoder's layers, over the families; none of a model that keeps them elsewhere (GPT-2, OPT, Falcon)."""
    for name in ("language_model", "text_model"):
        core = getattr(core, name, core)
    return getattr(core, "layers", ())


def _output_projection(attention: nn.Module) -> str | None:
    return next((n for n in ("o_proj", "dense") if hasattr(attention, n)), None)


def _can_skip(core: Any, layer: Any) -> bool:
    """True for the pre-norm layer with separate projections and full attention (Llama, Mistral, Qwen, Gemma, Phi, …)."""
    attention: Any = getattr(layer, "self_attn", None)
    plain = all(hasattr(attention, n) for n in ("q_proj", "k_proj", "v_proj", "config")) and hasattr(
        layer, "input_layernorm"
    )
    if not plain or _output_projection(attention) is None or getattr(attention, "is_kv_shared_layer", False):
        return False
    deepstack = getattr(getattr(core.config, "vision_config", None), "deepstack_visual_indexes", ())
    return len(decoder_layers(core)) > len(deepstack)  # Qwen3-VL adds image features after its first layers


@contextmanager
def replaced(module: Any, **attributes: Any) -> Iterator[None]:
    """Sets attributes of an object for the time of a `with` block; they come back after an error too."""
    old = {name: getattr(module, name) for name in attributes}
    for name, value in attributes.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in old.items():
            setattr(module, name, value)


@contextmanager
def forward_as(layer: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Gives one layer another `forward` for the time of a `with` block; its class is not touched."""
    before = vars(layer).get("forward")
    layer.forward = forward
    try:
        yield
    finally:
        if before is None:
            del layer.forward  # the class's own is seen again
        else:
            layer.forward = before


@contextmanager
def last_token_only(core: Any) -> Iterator[None]:
    """Inside, the last layer's output is that of the last position alone, (B, 1, H); its cache is filled as ever."""
    layers = decoder_layers(core)
    layer: Any = layers[-1] if layers else None
    if layer is None or not _can_skip(core, layer):
        yield
        return
    original = layer.forward

    def forward(hidden_states: Tensor, *arguments: Any, **named: Any) -> Any:
        mask = named.get("attention_mask")
        odd = arguments or not (mask is None or isinstance(mask, Tensor))
        if odd or hidden_states.shape[1] < 2 or _slides(named[str(name_among(named))], layer.self_attn.layer_idx):
            return original(hidden_states, *arguments, **named)
        _fill_cache(layer, hidden_states[:, :-1], _cut(named, slice(None, -1)) | {"attention_mask": None})
        if mask is not None and mask.dim() == 4:
            mask = mask[:, :, -1:]
        return original(hidden_states[:, -1:], **_cut(named, slice(-1, None)) | {"attention_mask": mask})

    with forward_as(layer, forward):
        yield


def _slides(cache: Any, index: int) -> bool:
    """True where the layer's cache keeps the last few keys only."""
    slot = cache.slot if isinstance(cache, _OneLayer) else cache.layers[index] if index < len(cache.layers) else None
    return bool(getattr(slot, "is_sliding", False))


def _cut(named: dict[str, Any], part: slice) -> dict[str, Any]:
    """A layer's arguments for some of the positions."""
    cut = dict(named)
    if named.get("position_embeddings") is not None:
        cut["position_embeddings"] = tuple(x[..., part, :] for x in named["position_embeddings"])
    if named.get("position_ids") is not None:
        cut["position_ids"] = named["position_ids"][..., part]
    return cut


def _fill_cache(layer: Any, hidden: Tensor, named: dict[str, Any]) -> None:
    """Keys and values of `hidden` go into the cache; queries, attention, output projection and MLP are left out."""
    attention = layer.self_attn
    output = _output_projection(attention)
    assert output is not None
    query_width = getattr(attention, output).in_features
    with (
        replaced(attention, **{"q_proj": _Zeros(query_width), output: nn.Identity()}),
        replaced(attention.config, _attn_implementation=NO_ATTENTION),
    ):
        attention(hidden_states=layer.input_layernorm(hidden), **named)


class _OneLayer:
    """A cache that holds one layer: what a layer sees while it may be computed twice."""

    def __init__(self, slot: Any):
        self.slot = slot

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return self.slot.update(keys, values)

    def get_seq_length(self, *_: Any) -> int:
        return self.slot.get_seq_length()


@contextmanager
def checkpointed(core: Any, keep_cache: bool) -> Iterator[None]:
    """Inside, each layer keeps its input and, with `keep_cache`, its keys and values; the rest is computed twice.

    Raises RecipeError for a model whose layers are not known or take their cache by another name.
    """
    if not decoder_layers(core):
        raise RecipeError(_CANNOT.format(type(core).__name__))
    with ExitStack() as stack:
        for index, layer in enumerate(decoder_layers(core)):
            stack.enter_context(forward_as(layer, _twice(layer.forward, index, keep_cache)))
        yield


def _twice(original: Callable[..., Any], index: int, keep_cache: bool) -> Callable[..., Any]:
    def forward(hidden_states: Tensor, *arguments: Any, **named: Any) -> Any:
        name = name_among(named)
        cache = None if name is None else named.pop(name)
        if name is None or cache is None:
            raise RecipeError(_CANNOT.format(type(original.__self__).__name__ if ismethod(original) else "the model"))
        slot = cache.layers[index]
        before = copy.copy(slot)

        def run(hidden: Tensor, keys: Tensor | None, values: Tensor | None) -> tuple[Any, Any]:
            own = copy.copy(before)
            own.keys, own.values = keys, values
            output = original(hidden, *arguments, **{name: _OneLayer(own)}, **named)
            return output, own

        filled: list[Any] = []

        def tensors(hidden: Tensor, keys: Tensor | None, values: Tensor | None) -> tuple[Any, ...]:
            output, own = run(hidden, keys, values)
            filled[:] = [own]
            return (output, own.keys, own.values) if keep_cache else (output,)

        result = checkpoint(tensors, hidden_states, before.keys, before.values, use_reentrant=False)
        if keep_cache:
            updated = filled[0]
            updated.keys, updated.values = result[1:]
            cache.layers[index] = updated
        filled.clear()
        return result[0]

    return forward
