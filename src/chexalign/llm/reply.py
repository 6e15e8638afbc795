"""What is asked of a language model and what comes back: a Reply, or an Abstain that says why there is none."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chexalign.errors import Abstain

Messages = tuple[tuple[str, str], ...]  # (role, text), …
Prompt = Messages | str  # a chat, or text to go on from, exactly as it is


def user(text: str) -> Messages:
    """A conversation of one turn; our prompts have no system turn."""
    return (("user", text),)


def as_dicts(messages: Messages) -> list[dict[str, str]]:
    """The form of the OpenAI chat API, for a request's body."""
    return [{"role": role, "content": text} for role, text in messages]


@dataclass(frozen=True)
class Reply:
    """One answer. Token counts are None where the server does not tell them."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finished: bool = True  # False: cut at max_tokens
    retries: int = 0

    def facts(self) -> dict[str, Any]:
        """What a verdict's details keep of it: cost, and the raw text is not among it."""
        row = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return {**row, **({"retries": self.retries} if self.retries else {})}


class Passing(Abstain):
    """A failure that another try may not meet: a time-out, a lost connection, an overloaded server. Never cached."""


class Unavailable(Passing):
    """The model cannot be asked at all at present: nothing but waiting for it or starting it again will help."""


Answer = Reply | Abstain
Backend = Callable[[Sequence[Prompt]], list[Answer]]


@dataclass
class Usage:
    """What a judge has spent so far, over all threads."""

    requests: int = 0  # sent, retries included
    retries: int = 0
    failed: int = 0  # prompts without an answer
    remembered: int = 0  # prompts answered from memory or the disk
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0  # of waiting, by the clock
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, **counts: float) -> None:
        """Adds to the counters of these names; safe from several threads."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)

    def line(self) -> str:
        """The bill in one line: requests, prompt + completion tokens, and seconds."""
        return (
            f"{self.requests} requests ({self.retries} retries, {self.failed} prompts without an answer,"
            f" {self.remembered} remembered), {self.prompt_tokens} + {self.completion_tokens} tokens, {self.seconds:.1f} s"
        )


BYTES_A_TOKEN = (
    3  # fewer than any Llama or Qwen vocabulary needs for English: the estimate is an upper one # our choice
)
MARKERS = 32  # tokens of a chat template around the text # our choice
LEAST_ROOM = 64  # tokens; no judge's answer is shorter # our choice


def room_for(prompt: Prompt, context: int) -> int:
    """Tokens that a prompt leaves for its answer in `context`, by an upper estimate of its own (bytes / 3).

    Raises Abstain when fewer than 64 are left: the server would refuse the request or cut the answer.
    """
    text = prompt if isinstance(prompt, str) else "".join(part for _, part in prompt)
    asked = math.ceil(len(text.encode("utf-8", "replace")) / BYTES_A_TOKEN) + MARKERS
    if context - asked < LEAST_ROOM:
        raise Abstain(
            f"a prompt of up to {asked} tokens leaves no room for an answer in {context}; raise context_tokens"
        )
    return context - asked
