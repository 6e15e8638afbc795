"""Whether text that was decoded as Windows' cp1252 reads as a language that cp1252 is for: a wrong table leaves traces."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

LETTERS = {  # letters beyond ASCII that a text of the language holds, in small and capital form
    "German": "äöüß",
    "French": "àâæçéèêëîïôœùûüÿ",
    "Spanish": "áéíóúñüç",
    "Portuguese": "ãõáâàçéêíóôúü",
    "Italian": "àèéìíîòóù",
    "Danish, Norwegian": "æøåéèêóòâô",
    "Swedish, Finnish": "åäöéšžü",
    "Dutch": "éèëïöüáóíêç",
    "Catalan": "àçéèíïóòúü",
}
SETS = [frozenset(small + small.upper()) for small in LETTERS.values()]
FOREIGN = 0.1  # share of letters from other languages (names of people and drugs) that a text may hold: our choice
SIGN_IN_WORD = re.compile(
    r"[^\W\d_][\u0080-\u00ac\u00ae-\u00b4\u00b6\u00b8-\u00bf\u00d7\u00f7\u0192\u02c6\u2018\u201a\u201c-\u201e"
    r"\u2020-\u2022\u2026\u2030\u20ac\u2122](?=[^\W\d_])"
)
MANY_ACCENTS = re.compile(r"[\u00c0-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e]{3,}")
CAPITAL_IN_WORD = re.compile(r"[a-z\u00df-\u00ff][\u00c0-\u00de\u0152\u0160\u0178\u017d](?=[a-z])")
CONTROLS = re.compile(r"[\x00\x80-\x9f]")
TRACES = (SIGN_IN_WORD, MANY_ACCENTS, CAPITAL_IN_WORD)


def unlikely_lines(lines: Iterable[tuple[int, str]], wide: bool) -> list[int]:
    """The numbers of lines with traces of a wrong table; in a `wide` encoding (UTF-8, UTF-16) only control characters."""
    patterns = (CONTROLS,) if wide else (CONTROLS, *TRACES)
    return [number for number, line in lines if any(p.search(line) for p in patterns)]


def reads_as_western(texts: Iterable[str]) -> bool:
    """Whether the letters beyond ASCII are those of one language, but for a tenth."""
    letters: Counter[str] = Counter()
    for text in texts:
        letters.update(c for c in text if not c.isascii() and c.isalpha())
    total = sum(n for c, n in letters.items() if c not in "ªºµ")
    return any(sum(letters[c] for c in known) >= (1 - FOREIGN) * total for known in SETS)
