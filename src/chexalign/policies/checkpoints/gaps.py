"""What a checkpoint lacks: weights without a place, and places without weights, are named instead of left random."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexalign.errors import RecipeError
from chexalign.progress import say_once

SHOWN = 3  # names in a line
WORDS = {
    "missing_keys": "missing weights",
    "mismatched_keys": "weights of another shape",
    "error_msgs": "weights that could not be read",
    "unexpected_keys": "weights without a place",
}


def refuse_gaps(source: str | Path, report: Mapping[str, Any], *, whole: bool = False) -> None:
    """Raises RecipeError unless every parameter of the model has got its weights; `report` is transformers' loading info.

    Weights without a place are said once: the model is computed without them. With `whole` they are refused too.
    """
    refused = ("missing_keys", "mismatched_keys", "error_msgs", *(("unexpected_keys",) if whole else ()))
    gaps = [f"{WORDS[kind]}: {named(report[kind])}" for kind in refused if report[kind]]
    if gaps and report["unexpected_keys"] and not whole:
        gaps.append(f"{WORDS['unexpected_keys']}: {named(report['unexpected_keys'])}")
    if gaps:
        raise RecipeError(f"policy.model {str(source)!r} is not whole; {'; '.join(gaps)}")
    if report["unexpected_keys"]:
        say_once(
            f"model {source}: the model has no place for {named(report['unexpected_keys'])}; it is computed without"
        )


def named(keys: Any) -> str:
    """The first few names with their shapes where these differ, and how many more there are."""
    found = sorted(_told(key) for key in keys)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


def _told(key: Any) -> str:
    if isinstance(key, tuple) and len(key) == 3:
        return f"{key[0]} ({tuple(key[1])} where {tuple(key[2])} is wanted)"
    return str(key[0] if isinstance(key, tuple) else key)
