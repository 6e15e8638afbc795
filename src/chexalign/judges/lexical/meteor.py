"""METEOR, each form under its own name, because they are different metrics.

- `meteor_nosyn` and `meteor_nltk`: NLTK's form (Banerjee and Lavie 2005; alpha .9, beta 3, gamma .5): words are matched
  exactly, then by Porter stem, and in `meteor_nltk` then by WordNet synonym. Text becomes tokens by `tokens` below.
- `meteor_1.5`: the Java program of the captioning tools (Denkowski and Lavie 2014), with stems, synonyms, paraphrases.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chexalign.errors import Abstain
from chexalign.judges.contract import TextJudge
from chexalign.judges.lexical import stemmer

ALPHA = 0.9
BETA = 3.0
GAMMA = 0.5
_TOKEN = re.compile(r"\d+(?:[.,]\d+)+|\w+(?:[-'’]\w+)*|[^\w\s]")
Words = tuple[Sequence[str], Sequence[str]]  # a text's tokens and their stems
Matches = list[tuple[int, int]]


def tokens(text: str) -> list[str]:
    """Lower case; words, numbers and marks stand alone. # our choice: NLTK leaves it to the caller"""
    return _TOKEN.findall(text.lower())


def with_stems(words: Sequence[str]) -> Words:
    """The tokens and, at the same places, their Porter stems: METEOR's first two ways to match."""
    return words, [stemmer()(w) for w in words]


def meteor_score(
    report: Words, reference: Words, synonyms: Callable[[str], frozenset[str]] | None = None
) -> tuple[float, dict[str, Any]]:
    """(1 - gamma · (chunks / m)^beta) · PR / (alpha · P + (1 - alpha) · R).

    m is the number of matched words, P = m / words of the report, R = m / words of the reference. A chunk is a run of
    matches that are neighbours on both sides. Even a text against itself stays below 1: n words in one chunk give
    1 - 0.5 / n^3.
    """
    m, matches = _align(report, reference, synonyms)
    found = {"matches": m, "chunks": 0, "precision": 0.0, "recall": 0.0}
    if not m:
        return 0.0, found
    precision, recall = m / len(report[0]), m / len(reference[0])
    breaks = sum(b != (a[0] + 1, a[1] + 1) for a, b in zip(matches, matches[1:], strict=False))
    found |= {"chunks": breaks + 1, "precision": precision, "recall": recall}
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    return (1 - GAMMA * ((breaks + 1) / m) ** BETA) * mean, found


def _align(report: Words, reference: Words, synonyms: Callable[[str], frozenset[str]] | None) -> tuple[int, Matches]:
    """Matched positions in the report's order: exact first, then stems, then synonyms; each from the end of the text."""
    left, right = list(range(len(report[0]))), list(range(len(reference[0])))
    matches: Matches = []
    stages: list[tuple[Sequence[str], Sequence[str], Callable[[str], frozenset[str]] | None]] = [
        (report[0], reference[0], None),
        (report[1], reference[1], None),
        *([(report[1], reference[1], synonyms)] if synonyms else []),  # of the stems: NLTK looks those up
    ]
    for words, others, alike in stages:
        new = _match([(i, words[i]) for i in left], [(j, others[j]) for j in right], alike)
        matches += new
        taken = {i for i, _ in new}, {j for _, j in new}
        left, right = [i for i in left if i not in taken[0]], [j for j in right if j not in taken[1]]
    return len(matches), sorted(matches)


def _match(
    words: Sequence[tuple[int, str]], others: Sequence[tuple[int, str]], alike: Callable[[str], frozenset[str]] | None
) -> Matches:
    """From the last word back, each takes the last free equal (or `alike`) word of the other side."""
    places: dict[str, list[int]] = defaultdict(list)
    for j, other in others:
        places[other].append(j)
    found = []
    for i, word in reversed(words):
        options = {word} if alike is None else alike(word) | {word}
        best = max((w for w in options if places.get(w)), key=lambda w: places[w][-1], default=None)
        if best is not None:
            found.append((i, places[best].pop()))
    return found


def meteor_nosyn() -> TextJudge:
    """0 to 1: NLTK's METEOR without WordNet, so that it needs no download. Not comparable with printed METEOR."""
    return TextJudge("meteor_nosyn", "1 exact and Porter stem", lambda t: with_stems(tokens(t)), meteor_score)


def meteor_nltk() -> TextJudge:
    """0 to 1: with WordNet's synonyms; abstains on every pair, and says why, where WordNet is not installed."""

    def compare(report: Words, reference: Words) -> tuple[float, dict[str, Any]]:
        if why := missing_wordnet():
            raise Abstain(why)
        return meteor_score(report, reference, _synonyms)

    return TextJudge("meteor_nltk", "1 exact, Porter stem, WordNet", lambda t: with_stems(tokens(t)), compare)


@functools.lru_cache(maxsize=100_000)
def _synonyms(word: str) -> frozenset[str]:
    """One-word lemmas of all WordNet senses of a word."""
    from nltk.corpus import wordnet

    return frozenset(name for s in wordnet.synsets(word) for name in s.lemma_names() if "_" not in name)


def missing_wordnet(**options: Any) -> str | None:
    """Where NLTK would look for WordNet; a reason when it is nowhere."""
    home = [Path(p) for p in os.environ.get("NLTK_DATA", "").split(os.pathsep) if p] + [Path.home() / "nltk_data"]
    inside = [Path(sys.prefix) / part for part in ("nltk_data", "share/nltk_data", "lib/nltk_data")]
    system = [Path(p) for p in ("/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib")]
    for root in [*home, *inside, *(p / "nltk_data" for p in system)]:
        if (root / "corpora/wordnet/index.sense").is_file() or (root / "corpora/wordnet.zip").is_file():
            return None
    return "WordNet is not installed for NLTK; python -m nltk.downloader wordnet (docs/understand/judges.md)"
