"""The words that state a finding: its mention, its sentence, the tokens that write it, and where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from chexalign.evaluation.grounding.pointing import Boxes
from chexalign.labels import find_mentions
from chexalign.labels.phrases import SENTENCE_END, tokens_of
from chexalign.policies.policy import Policy
from chexalign.records import Study


class Statement(NamedTuple):
    """The first sentence that states a finding: characters of the mention and of the sentence, tokens that write it."""

    label: str
    mention: tuple[int, int]
    sentence: tuple[int, int]
    tokens: tuple[int, ...]


def spell(policy: Policy, tokens: Sequence[int]) -> tuple[str, list[int]]:
    """The text of the tokens and where each token ends in it. Sampled tokens need not be those the text would give."""
    decode = policy.tokenizer.decode
    ends = [len(decode(list(tokens[: k + 1]), skip_special_tokens=True)) for k in range(len(tokens))]
    return decode(list(tokens), skip_special_tokens=True), ends


def statements(text: str, ends: Sequence[int]) -> dict[str, Statement]:
    """Every finding that the text states for sure → where it does so first."""
    stops = [0, *(t.end for t in tokens_of(text) if t.word[0] in SENTENCE_END), len(text)]
    found: dict[str, Statement] = {}
    for m in find_mentions(text):
        if m.status == 1 and m.label not in found:
            span = max(s for s in stops if s <= m.start), min(s for s in stops if s >= m.end)
            found[m.label] = Statement(m.label, (m.start, m.end), span, tokens_in(text, ends, *span))
    return found


def places(study: Study) -> dict[str, Boxes]:
    """Finding → the boxes it lies in, on the first image; empty where the source knows none."""
    return {label: boxes for label, boxes in (study.labels.get("boxes") or {}).items() if boxes}


def tokens_in(text: str, ends: Sequence[int], start: int, end: int) -> tuple[int, ...]:
    """Tokens of which some visible character lies in [start, end)."""
    begins = [0, *ends[:-1]]
    return tuple(
        k for k, (a, b) in enumerate(zip(begins, ends, strict=True)) if text[max(a, start) : min(b, end)].strip()
    )
