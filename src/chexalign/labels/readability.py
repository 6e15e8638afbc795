"""Can a text be read as a report at all, and in which language? By stated rules, before any judge scores it.

A problem is one of: empty (no letter), no statement ("12345", "nan", "Findings:"), refusal ("I'm sorry, I cannot …"),
repetition (the same words over and over). The language is the one whose telling words (languages.toml) are most and more than
the English ones, a script for one that is not Latin, or None where no word tells: "Cardiomegaly" may be English, a
product name may be anything. Both tables are ours; no model is asked, so that 1,000 reports take some 50 ms.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections import Counter
from functools import cache, lru_cache
from importlib import resources
from typing import NamedTuple

ENGLISH = "English"
SCRIPTS = (  # (first character, last character, language), for texts of mostly such letters
    ("\u3040", "\u30ff", "Japanese"),
    ("\u4e00", "\u9fff", "Chinese"),
    ("\u3400", "\u4dbf", "Chinese"),
    ("\uac00", "\ud7af", "Korean"),
    ("\u0400", "\u04ff", "Russian or another language in Cyrillic letters"),
    ("\u0370", "\u03ff", "Greek"),
    ("\u0600", "\u06ff", "Arabic or another language in Arabic letters"),
    ("\u0590", "\u05ff", "Hebrew"),
    ("\u0900", "\u097f", "Hindi or another language in Devanagari letters"),
    ("\u0e00", "\u0e7f", "Thai"),
)
GRAM, LEAST_WORDS, DISTINCT = 4, 16, 0.3  # repetition: under 30 % of the runs of four words are different # our choice
DOUBLED = 3  # or this many words stand twice in a row … # our choice
DOUBLED_SHARE = 0.1  # … and they are this share of the words # our choice
_WORD = re.compile(r"[^\W_]+(?:'[^\W\d_]+)?")
_SENTENCE = re.compile(r"[.!?;\n]+\s*")


class Legibility(NamedTuple):
    """What is wrong with a text, in words (None: nothing), and its language (None: not told by its words)."""

    problem: str | None
    language: str | None


class _Tables(NamedTuple):
    words: dict[str, tuple[str, ...]]  # a telling word → the languages it tells
    letters: dict[str, tuple[str, ...]]
    endings: tuple[tuple[str, str], ...]
    refusal: re.Pattern[str]
    void: re.Pattern[str]
    triggers: frozenset[str]  # every refusal holds one of these words


@cache
def _tables() -> _Tables:
    rows = tomllib.loads(_text("languages.toml"))
    words: dict[str, tuple[str, ...]] = {}
    letters: dict[str, tuple[str, ...]] = {}
    for language, row in rows.items():
        for word in row["words"].split():
            words[word] = (*words.get(word, ()), language)
        for letter in row.get("letters", ""):
            letters[letter] = (*letters.get(letter, ()), language)
    endings = tuple((end, language) for language, row in rows.items() for end in row.get("endings", ()))
    other = tomllib.loads(_text("unreadable.toml"))
    triggers = frozenset(other["refusal"]["triggers"].split())
    refusal, void = "|".join(other["refusal"]["sentences"]), "|".join(f"(?:{t})" for t in other["void"]["texts"])
    return _Tables(words, letters, endings, re.compile(refusal), re.compile(void), triggers)


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@lru_cache(maxsize=50_000)
def examine(text: str) -> Legibility:
    """What a text is, before anyone scores it. Full-width letters and their like count as the plain ones."""
    plain = unicodedata.normalize("NFKC", text).lower() if not text.isascii() else text.lower()
    plain = plain.replace("\u2019", "'").replace("\u00ad", "")
    if not any(c.isalnum() for c in plain):
        return Legibility("empty", None)
    words = _WORD.findall(plain)
    if (language := _script(plain)) is None:
        language = _language(words) if words else None
    return Legibility(_problem(plain, words), language)


def _problem(plain: str, words: list[str]) -> str | None:
    if all(word.isdigit() for word in words):
        return "no statement"
    if _repeats(words):
        return "repetition"
    tables = _tables()
    left = [s for s in (s.strip(" \t\r:,-*#>_\"'()[]{}") for s in _SENTENCE.split(plain)) if s]
    if tables.triggers.isdisjoint(words):
        return None if any(not tables.void.fullmatch(s) for s in left) else "no statement"
    kept = [s for s in left if not tables.refusal.search(s)]
    stated = [s for s in kept if not tables.void.fullmatch(s)]
    if len(kept) < len(left) and (not stated or len(left) - len(kept) > len(stated)):
        return "refusal"
    return None if stated else "no statement"


def _repeats(words: list[str]) -> bool:
    """The same runs of words over and over, or a stammer: "image image of of the the"."""
    doubled = sum(a == b for a, b in zip(words, words[1:], strict=False))
    if doubled >= DOUBLED and doubled >= DOUBLED_SHARE * len(words):
        return True
    runs = list(zip(*(words[k:] for k in range(GRAM)), strict=False))
    return len(words) >= LEAST_WORDS and len(set(runs)) < DISTINCT * len(runs)


def _script(plain: str) -> str | None:
    """The language of a text whose letters are mostly not Latin."""
    if plain.isascii():
        return None
    foreign = [c for c in plain if c >= "\u0370" and c.isalpha() and not "\u1e00" <= c <= "\u1eff"]
    if 2 * len(foreign) <= sum(c.isalpha() for c in plain):
        return None
    found = Counter(name for c in foreign for first, last, name in SCRIPTS if first <= c <= last)
    if found["Japanese"]:
        return "Japanese"
    return found.most_common(1)[0][0] if found else "a language in another script"


def _language(words: list[str]) -> str | None:
    tables, found = _tables(), Counter[str]()
    known, letters, ends = tables.words, tables.letters, tuple(ending for ending, _ in tables.endings)
    for word in words:
        if told := known.get(word):
            found.update(told)
        elif not word.isascii() and (told := tuple({name for c in word for name in letters.get(c, ())})):
            found.update(told)
        elif len(word) > 6 and word.endswith(ends):
            found.update(name for ending, name in tables.endings if word.endswith(ending))
    english = found.pop(ENGLISH, 0)
    if found and (best := found.most_common(1)[0])[1] > english:
        return best[0]
    return ENGLISH if english else None
