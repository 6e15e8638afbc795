"""What a report states in the vocabulary of concepts.toml: every mention, with the words that describe it."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any, NamedTuple

from chexalign.labels import tables
from chexalign.labels.context import ABSENT, PRESENT, Reading, read, scopes, size_status
from chexalign.labels.coordination import say_again
from chexalign.labels.measures import measures_of, size_of
from chexalign.labels.modifiers import Modifiers, Traits, describe
from chexalign.labels.phrases import Item, Tag, Trie, sentences_with_words

LOOK_BACK, LOOK_AHEAD = 4, 9  # words between an organ and what is said of it # our choice
NAMES_AHEAD, ITEMS_AHEAD = 3, 20  # from an opacity to the finding that explains it # our choice
MEASURED = frozenset({"nodule", "mass", "cavity", "pneumothorax", "granuloma"})
SIZED = MEASURED | {"pleural effusion"}  # here "moderate" is a size, else a severity
SHADOW = "opacity"
ABDOMEN = "bowel or abdomen"  # says nothing about a chest


@dataclass(frozen=True, slots=True)
class ConceptMention:
    """One place in a text that names a finding; `start` and `end` are characters of the text as given."""

    name: str
    status: int  # 1 present, 0 absent, -1 uncertain
    start: int
    end: int
    modifiers: Modifiers  # side, zone, size, severity, change
    size_mm: float | None


class Vocabulary(NamedTuple):
    """concepts.toml, compiled: how phrases become findings, and how much each finding matters."""

    trie: Trie
    traits: Traits
    pairs: dict[tuple[str, str], str]  # (organ, quality) → finding
    classes: dict[str, str]  # finding → class of significance


def table(name: str) -> dict[str, Any]:
    """A TOML table beside this file, by file name, parsed anew at each call."""
    return tomllib.loads(_text(name))


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def version() -> str:
    """Eight hex digits that change with any table this judge reads."""
    texts = (_text("concepts.toml"), _text("significance.toml"), tables.version())
    return hashlib.blake2b("".join(texts).encode(), digest_size=4).hexdigest()


@cache
def vocabulary() -> Vocabulary:
    """concepts.toml with the cues and modifiers of the labeller, in one trie."""
    concepts = table("concepts.toml")
    root = Trie()
    for phrase, tag in (*tables.entries(("cues.toml", "modifiers.toml")), *entries(concepts)):
        root.add(phrase, tag)
    found = concepts["finding"]
    no_side = frozenset(k for k, row in found.items() if row.get("place") == "none")
    no_zone = no_side | {k for k, row in found.items() if row.get("place") == "side"}
    traits = Traits(no_side, no_zone, no_zone, SIZED, doubt_lends=True)
    pairs = {_pair(pair, concepts): k for k, row in found.items() for pair in row.get("pairs", ())}
    return Vocabulary(root, traits, pairs, {k: row["class"] for k, row in found.items()})


def entries(concepts: dict[str, Any]) -> Iterator[tuple[str, Tag]]:
    """Every phrase of concepts.toml with its meaning."""
    for name, row in concepts["finding"].items():
        for kind in ("says", "hints", "implies", "denies"):
            yield from ((phrase, Tag(kind, name)) for phrase in row.get(kind, ()))
    for kind in ("zone", "organ", "quality", "change", "explains", "body", "all_well", "harmless"):
        for value, phrases in concepts[kind].items():
            yield from ((phrase, Tag(kind, value)) for phrase in phrases)
    yield from ((phrase, Tag("ignore", "")) for phrase in concepts["ignore"]["phrases"])


def _pair(text: str, concepts: dict[str, Any]) -> tuple[str, str]:
    organ, _, quality = text.rpartition(" ")
    if organ not in concepts["organ"] or quality not in concepts["quality"]:
        raise ValueError(f"concepts.toml: the pair {text!r} names no organ and quality of the file")
    return organ, quality


class TextReading(NamedTuple):
    """What the vocabulary found in one text, and what it could not read."""

    mentions: tuple[ConceptMention, ...]  # denied findings too
    speaks: bool  # whether the text speaks of a chest at all
    unread: tuple[str, ...]  # sentences with words of their own in which nothing was read, in lower case


@lru_cache(maxsize=50_000)
def read_text(text: str) -> TextReading:
    """Every finding the text mentions, and what of it the vocabulary cannot read."""
    words, found, speaks = vocabulary(), [], False
    unread: list[str] = []
    measures = measures_of(text)
    for tagged, said in sentences_with_words(text, words.trie):
        items = say_again(tagged)
        readings = sorted([*read(items), *_pairs_read(items, words.pairs)], key=lambda r: (r.first, r.last))
        normal = not readings and _calls_normal(items)
        speaks = speaks or any(r.label != ABDOMEN for r in readings) or normal
        if not readings and not normal and _states_something(items, said):
            unread.append(" ".join(said))
        explained = _explained(items, readings)
        readings = [r for n, r in enumerate(readings) if n not in explained]
        for r, how in zip(readings, describe(items, readings, words.traits), strict=True):
            start, end = items[r.first].start, items[r.last].end
            size = size_of(start, end, measures) if r.label in MEASURED else None
            found.append(ConceptMention(r.label, r.status, start, end, how, size))
    return TextReading(tuple(found), speaks, tuple(unread))


def _states_something(items: Sequence[Item], words: Sequence[str]) -> bool:
    """A sentence with words that is not of the kind that states nothing (concepts.toml: harmless, status)."""
    said = [w for w in words if len(w) > 1 and w.isalpha()]
    return not _status_words().issuperset(said) and not any(i.kind == "harmless" for i in items)


@cache
def _status_words() -> frozenset[str]:
    return frozenset(table("concepts.toml")["status"]["words"].split())


def _calls_normal(items: Sequence[Item]) -> bool:
    """ "NAD", or a part of the body and a word that calls it normal, denies something or could not judge it."""
    normal = any(i.value in ("normal", "absent") and i.kind in ("quality", "before", "after") for i in items)
    judged = normal or any(i.kind == "limits" for i in items)
    return any(i.kind == "all_well" for i in items) or (judged and any(i.kind in ("organ", "body") for i in items))


def _explained(items: Sequence[Item], readings: Sequence[Reading]) -> set[int]:
    """The opacities that their sentence goes on to name for sure: "opacity consistent with atelectasis" is one finding."""
    found = set()
    for n, shadow in enumerate(readings):
        if shadow.label != SHADOW or shadow.status == ABSENT:
            continue
        for later in readings[n + 1 : n + 1 + NAMES_AHEAD]:
            named = later.label != SHADOW and later.status == PRESENT and later.first - shadow.last < ITEMS_AHEAD
            if named and any(i.kind == "explains" for i in items[shadow.last + 1 : later.first]):
                found.add(n)
    return found


def _pairs_read(items: Sequence[Item], pairs: dict[tuple[str, str], str]) -> Iterator[Reading]:
    """Findings said as an organ with a quality: "tortuous aorta", "the right hemidiaphragm is elevated"."""
    in_force: list[str] | None = None
    for k, item in enumerate(items):
        if item.kind != "organ" or (j := _quality(items, k, pairs)) is None:
            continue
        in_force = in_force or scopes(items)
        first, last = min(j, k), max(j, k)
        if items[j].value == "normal":
            names = dict.fromkeys(name for (organ, _), name in pairs.items() if organ == item.value)
            yield from (Reading(name, ABSENT, first, last) for name in names)
        else:
            yield Reading(pairs[item.value, items[j].value], size_status(items, in_force, j), first, last)


def _quality(items: Sequence[Item], k: int, pairs: dict[tuple[str, str], str]) -> int | None:
    """The item that says what the organ is like: one just before it, or else the first after it."""
    organ = items[k].value
    for j in range(k - 1, -1, -1):
        if items[j].kind in ("stop", "comma", "organ") or items[k].first - items[j].last > LOOK_BACK:
            break
        if items[j].kind == "quality" and (organ, items[j].value) in pairs:
            return j
    for j in range(k + 1, len(items)):
        if items[j].kind == "stop" or items[j].first - items[k].last > LOOK_AHEAD:
            break
        if items[j].kind == "quality" and (items[j].value == "normal" or (organ, items[j].value) in pairs):
            return j
    return None
