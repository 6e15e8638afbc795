"""Phrases as data: a small phrase language, a trie over words, and one left-to-right scan of a text.

The language: words separated by spaces; `word*` matches a prefix of three letters or more, `_` any one word, `(a|b c)`
one of several, `?` after a word or a group makes it optional. Case and hyphens do not matter. At each place the longest
phrase wins and is used up, so a longer phrase protects its words from a shorter one ("pericardial effusion").
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from chexalign.labels.plain import plain
from chexalign.labels.spelling import meant

_SLOT = re.compile(r"\([^)]*\)\??|\S+")
_TOKEN = re.compile(r"\d+(?:\.\d+)?|(?:vs|dr|approx)\.|[^\W_\d]+(?:'[^\W_\d]+)?|[^\W_]+|[.,;:]|\n(?:\s*\n)?")
_LINE_STARTS_ANEW = re.compile(r"\s*(?:[-*•]|\d+[.)]|[A-Z][a-z]|[A-Z][A-Z ]+:)")
_PREFIX = 3
_WRAPPED = 40  # characters: a line that is longer may go on in the next one # our choice
_GOES_ON = re.compile(
    r"(?:,|\b(?:no|or|and|nor|of|the|with|without|in|at|is|are|for|pleural|to|a|an|small|left|right))\s*$",
    re.IGNORECASE,
)
_SPELLED = 100_000  # words whose meaning a trie remembers
SENTENCE_END = frozenset({".", ";", "\n"})


class Tag(NamedTuple):
    """What a phrase means: a kind of cue or finding, and its value."""

    kind: str
    value: str


class Item(NamedTuple):
    """One tag at the characters [start, end) of a text; `first` and `last` number its words."""

    kind: str
    value: str
    start: int
    end: int
    first: int
    last: int


class Token(NamedTuple):
    """A word as the tables spell it, at the characters [start, end) of the text."""

    word: str
    start: int
    end: int


def expand(phrase: str) -> Iterator[tuple[str, ...]]:
    """All word sequences a phrase stands for: "(heart|lung) size?" gives four."""
    slots: list[list[list[str]]] = []
    for slot in _SLOT.findall(phrase):
        body = slot.removesuffix("?")
        choices = [choice.split() for choice in body.strip("()").split("|")]
        slots.append([*choices, []] if slot.endswith("?") else choices)
    for choice in itertools.product(*slots):
        yield tuple(itertools.chain.from_iterable(choice))


@dataclass(slots=True)
class Trie:
    """A node: the words and prefixes that lead on, and the tags of the phrase that ends here."""

    words: dict[str, Trie] = field(default_factory=dict)
    prefixes: dict[str, list[tuple[str, Trie]]] = field(default_factory=dict)
    any_word: Trie | None = None
    tags: tuple[Tag, ...] = ()
    spelled: dict[str, tuple[str, ...]] = field(default_factory=dict)  # the root's: a word → the words it stands for
    known: tuple[frozenset[str], tuple[str, ...]] | None = None  # the root's: all words, all prefixes below it

    def meant(self, word: str) -> tuple[str, ...]:
        """The word or words of this trie's phrases that a word stands for (spelling.py); itself where there are none."""
        if (found := self.spelled.get(word)) is None:
            if len(self.spelled) >= _SPELLED:
                self.spelled.clear()
            found = self.spelled[word] = meant(word, self.knows)
        return found

    def knows(self, word: str) -> bool:
        """Whether a phrase holds this word, or a prefix of it."""
        if self.known is None:
            words: set[str] = set()
            prefixes: set[str] = set()
            todo = [self]
            while todo:
                node = todo.pop()
                words.update(node.words)
                rows = [row for bucket in node.prefixes.values() for row in bucket]
                prefixes.update(prefix for prefix, _ in rows)
                todo += [
                    *node.words.values(),
                    *(child for _, child in rows),
                    *([node.any_word] if node.any_word else []),
                ]
            self.known = (frozenset(words), tuple(prefixes))
        return word in self.known[0] or word.startswith(self.known[1])

    def add(self, phrase: str, tag: Tag) -> None:
        """Puts every spelling of a phrase in. Raises ValueError for a question mark inside a group."""
        if any(word.endswith("?") for words in expand(phrase) for word in words):
            raise ValueError(f"a question mark inside a group: {phrase!r}")
        for words in expand(phrase):
            node = self
            for word in words:
                node = node._child(word)
            if tag not in node.tags:
                node.tags = (*node.tags, tag)

    def _child(self, word: str) -> Trie:
        if word == "_":
            self.any_word = self.any_word or Trie()
            return self.any_word
        if not word.endswith("*"):
            return self.words.setdefault(word, Trie())
        prefix = word[:-1]
        if len(prefix) < _PREFIX:
            raise ValueError(f"the prefix {word!r} is shorter than {_PREFIX} letters")
        bucket = self.prefixes.setdefault(prefix[:_PREFIX], [])
        for known, child in bucket:
            if known == prefix:
                return child
        bucket.append((prefix, child := Trie()))
        return child

    def step(self, word: str) -> list[Trie]:
        """The nodes one word leads to."""
        found = [child] if (child := self.words.get(word)) is not None else []
        if bucket := self.prefixes.get(word[:_PREFIX]):
            found += [child for prefix, child in bucket if word.startswith(prefix)]
        if self.any_word is not None and word[0].isalnum():
            found.append(self.any_word)
        return found

    def longest(self, tokens: list[Token], at: int) -> tuple[int, tuple[Tag, ...]]:
        """Where the longest phrase that begins at token `at` ends, and its tags; (at, ()) when there is none."""
        nodes, best = self.step(tokens[at].word), at
        tags: tuple[Tag, ...] = ()
        while nodes:
            at += 1
            if named := [tag for node in nodes for tag in node.tags]:
                best, tags = at, tuple(dict.fromkeys(named))
            if at == len(tokens):
                break
            word = tokens[at].word
            nodes = [child for node in nodes for child in node.step(word)]
        return best, tags


def lower_keep_length(text: str) -> str:
    """Lower case without moving a character (a few letters, such as a dotted capital I, would become two)."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def tokens_of(text: str, root: Trie | None = None) -> list[Token]:
    """Words, numbers and the punctuation that matters, at their places in `text`, as `root` spells them.

    A line break counts where a line ends a sentence: it is short, or the next one starts anew.
    """
    read, at = plain(text)
    tokens, line_start = [], 0
    for m in _TOKEN.finditer(lower_keep_length(read)):
        word, (start, end) = m.group(), m.span()
        if word[0] == "\n":
            if len(word) == 1 and not _ends_line(read, line_start, start, end):
                line_start = end
                continue
            word, line_start = "\n", end
        place = (start, end) if at is None else (at[start], at[end - 1] + 1)
        meant = (word,) if root is None else root.spelled.get(word) or root.meant(word)
        tokens.append(Token(meant[0], *place))
        if len(meant) > 1:
            tokens += [Token(w, *place) for w in meant[1:]]
    return tokens


def _ends_line(text: str, start: int, at: int, after: int) -> bool:
    return bool(_LINE_STARTS_ANEW.match(text, after)) or (
        at - start < _WRAPPED and not _GOES_ON.search(text, start, at)
    )


def sentences(text: str, trie: Trie) -> Iterator[list[Item]]:
    """The tagged items of each sentence of a text, left to right; sentences without any are left out."""
    return (items for items, _ in sentences_with_words(text, trie) if items)


def sentences_with_words(text: str, trie: Trie) -> Iterator[tuple[list[Item], list[str]]]:
    """The tagged items of each sentence of a text, and its words."""
    tokens = tokens_of(text, trie)
    items: list[Item] = []
    at = start = 0
    while at < len(tokens):
        if tokens[at].word in SENTENCE_END:
            if at > start:
                yield items, [t.word for t in tokens[start:at]]
                items = []
            at += 1
            start = at
            continue
        end, tags = trie.longest(tokens, at)
        for kind, value in tags:
            items.append(Item(kind, value, tokens[at].start, tokens[end - 1].end, at, end))
        at = max(end, at + 1)
    if at > start:
        yield items, [t.word for t in tokens[start:at]]
