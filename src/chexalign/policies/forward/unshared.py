"""The plain path: prompt and completion go through the model together, nothing shared. Slow, and right for any model.

For models that keep no key/value cache which could be expanded and differentiated (Mamba and other recurrent ones).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chexalign.errors import RecipeError
from chexalign.policies.forward.cache_name import NAMES, cache_name
from chexalign.policies.forward.unwrap import base_model, core_model
from chexalign.progress import say

_PLAIN = "chexalign_plain_path"
_said: set[str] = set()


def takes_plain_path(base: Any, plain: bool) -> None:
    """Put a model on the plain path, or off it."""
    setattr(base, _PLAIN, plain)


def can_share(model: Any) -> bool:
    """False for recurrent models, of which it says so once per class, and for those put on the plain path."""
    base, core = base_model(model), core_model(model)
    if getattr(base, _PLAIN, False):
        return False
    stateful = getattr(base, "_is_stateful", False)
    if not stateful and cache_name(core):
        return True
    name = type(base).__name__
    if name not in _said:
        _said.add(name)
        why = (
            "keeps no key/value cache to share" if stateful else f"takes no key/value cache named {' or '.join(NAMES)}"
        )
        say(f"{name} {why}: each completion is scored with its own prompt pass (slower)")
    return False


@dataclass
class Plain:
    """Stands in for logps.Encoded: keeps the tokens and reads them again whenever more are added."""

    ids: Tensor  # (N, P), left-padded prompts and what has been read since
    mask: Tensor
    extra: dict[str, Tensor]
    last: Tensor  # (N, H)

    def expand(self, repeats: int) -> Plain:
        """Every row `repeats` times, neighbours: one for each completion of a prompt."""
        return self._rows(lambda x: x.repeat_interleave(repeats, dim=0))

    def select(self, rows: Tensor) -> Plain:
        """Rows by index, in that order; a row may come twice."""
        return self._rows(lambda x: x[rows])

    def copy(self) -> Plain:
        """The same tokens without their graph: nothing here grows in place, so nothing is cloned."""
        return self._rows(lambda x: x.detach())

    def _rows(self, change: Any) -> Plain:
        return Plain(
            change(self.ids), change(self.mask), {k: change(v) for k, v in self.extra.items()}, change(self.last)
        )

    def read(self, model: Any, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states of more tokens, (N, T) → (N, T, H)."""
        before = self.ids.shape[1]
        self.ids = torch.cat([self.ids, ids], dim=1)
        self.mask = torch.cat([self.mask, mask], dim=1)
        return _hidden(model, self.ids, self.mask, self.extra)[:, before:]


def encode(model: Any, prefix: Any) -> Plain:
    """The prompts' last hidden states, and the prompts themselves. Raises RecipeError when images cannot be repeated."""
    extra = dict(prefix.extra)
    if lost := [k for k, v in extra.items() if len(v) != len(prefix.ids)]:
        raise RecipeError(
            f"{type(model).__name__} needs the plain path, and its {lost} do not come one per prompt: use one image per "
            "study (studies.max_images=1)"
        )
    return Plain(prefix.ids, prefix.mask, extra, _hidden(model, prefix.ids, prefix.mask, extra)[:, -1])


def _hidden(model: Any, ids: Tensor, mask: Tensor, extra: dict[str, Tensor]) -> Tensor:
    """Hidden states of left-padded rows, (N, T, H). Padding stands behind the text meanwhile: a state would read it."""
    core = core_model(model)
    length, start = ids.shape[1], (mask.cumsum(1) == 0).sum(1, keepdim=True)  # where each row's text begins
    place = torch.arange(length, device=ids.device)
    order, back = (place + start) % length, (place - start) % length
    arguments: dict[str, Any] = dict(extra)
    if "attention_mask" in inspect.signature(core.forward).parameters:
        arguments["attention_mask"] = mask.gather(1, order)
    hidden = core(input_ids=ids.gather(1, order), use_cache=False, **arguments).last_hidden_state
    return hidden.gather(1, back[..., None].expand(-1, -1, hidden.shape[-1]))
