"""Reads the phrase tables beside this file into one trie, and names their version."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import resources

from chexalign.labels.phrases import Tag, Trie

FILES = ("findings.toml", "cues.toml", "modifiers.toml")
READ = (*FILES, "plain.toml", "spelling.toml")  # what the reading depends on


@cache
def trie() -> Trie:
    """All phrases of all tables, made at the first call and then shared: nobody may add to it."""
    root = Trie()
    for phrase, tag in entries():
        root.add(phrase, tag)
    return root


@cache
def version() -> str:
    """Eight hex digits that change with any table: part of the version of every judge built on the labels."""
    return hashlib.blake2b("".join(_text(name) for name in READ).encode(), digest_size=4).hexdigest()


def entries(files: tuple[str, ...] = FILES) -> Iterator[tuple[str, Tag]]:
    """Every phrase with its meaning. A table's keys are (label, kind), (cue, place) or (kind, value): see the files."""
    for name in files:
        for table, lists in tomllib.loads(_text(name)).items():
            for key, phrases in lists.items():
                tag = _tag(name, table, key)
                yield from ((phrase, tag) for phrase in phrases)


def _tag(name: str, table: str, key: str) -> Tag:
    if name == "findings.toml":
        return Tag("ignore", "") if table == "ignore" else Tag(key, table)
    return Tag(key, table) if key in ("before", "after", "last") else Tag(table, key)


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
