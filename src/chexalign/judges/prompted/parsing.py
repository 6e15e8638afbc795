"""Reads the JSON object out of a model's answer, which may have thoughts, a fence or a sentence around it."""

from __future__ import annotations

import json
import re
from typing import Any

from chexalign.errors import Abstain
from chexalign.llm.reply import Reply

_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_STARTS = 20  # opening braces that are tried


def parse_failed(why: str) -> Abstain:
    """The abstention of an answer that cannot be read. Its first word is what is counted."""
    return Abstain(f"parse_failed: {why}")


def json_object(reply: Reply) -> dict[str, Any]:
    """The first JSON object in an answer. Raises Abstain (`parse_failed: …`)."""
    text = _THOUGHT.sub("", reply.text)
    decoder = json.JSONDecoder()
    at = -1
    for _ in range(_STARTS):
        at = text.find("{", at + 1)
        if at < 0:
            break
        try:
            value, _ = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    cut = "" if reply.finished else " (it was cut at max_tokens)"
    raise parse_failed(f"no JSON object in the answer{cut}: {' '.join(reply.text.split())[:80]!r}")
