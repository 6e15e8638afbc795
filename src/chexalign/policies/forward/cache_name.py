"""What a model calls its key/value cache: `past_key_values` up to transformers 5.23, `cache` from 5.24 (hub code: either).

Tested on transformers 5.23 and 5.24; the old name goes in 5.40.
"""

from __future__ import annotations

import inspect
from typing import Any

NAMES = ("cache", "past_key_values")
_known: dict[type, str | None] = {}


def cache_name(module: Any) -> str | None:
    """The argument by which a model takes its cache, and the entry of its output that gives it; None where there is none."""
    kind = type(module)
    if kind not in _known:  # asked for every sampled token
        _known[kind] = name_among(inspect.signature(kind.forward).parameters)
    return _known[kind]


def name_among(arguments: Any) -> str | None:
    """The cache's name among the arguments of a call, or None."""
    return next((name for name in NAMES if name in arguments), None)
