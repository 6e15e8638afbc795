"""Words that the tables do not know: British spelling, a denial stuck to its noun, a typing error one edit away.

Only long words are mended, only towards the names in spelling.toml, and only where their first letter is right; a word that
the tables know is never touched.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import cache
from importlib import resources

from rapidfuzz.distance import OSA

SHORTEST = 7  # letters of a word that may hold a typing error # our choice
BRITISH = (
    ("ae", "e"),
    ("oe", "e"),
    ("our", "or"),
    ("is", "iz"),
    ("ys", "yz"),
    ("centre", "center"),
    ("fibre", "fiber"),
)


@cache
def _lists() -> tuple[tuple[str, ...], frozenset[str]]:
    rows = tomllib.loads(resources.files(__package__).joinpath("spelling.toml").read_text(encoding="utf-8"))
    return tuple(rows["targets"].split()), frozenset(rows["kept"].split())


def meant(word: str, knows: Callable[[str], bool]) -> tuple[str, ...]:
    """The word or words that `word` stands for; itself where nothing better is known. `knows`: whether the tables do."""
    if knows(word) or not word.isalpha():
        return (word,)
    for british, american in BRITISH:
        if british in word and knows(changed := word.replace(british, american)):
            return (changed,)
    if len(word) < SHORTEST:
        return (word,)
    targets, kept = _lists()
    if word in kept:
        return (word,)
    if word.startswith("no") and word[2:] in targets:
        return ("no", word[2:])
    alike = (t for t in targets if t[0] == word[0] and abs(len(t) - len(word)) <= 1)
    near = [t for t in alike if OSA.distance(word, t, score_cutoff=1) <= 1]
    return (near[0],) if near else (word,)
