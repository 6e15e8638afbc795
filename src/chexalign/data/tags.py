"""The tags that a policy can be taught to write its text between: `<report>…</report>` (VALOR)."""

from __future__ import annotations

import re

_ANY = re.compile(r"<\s*/?\s*report\b[^<>]*>", re.IGNORECASE)
_WHOLE = re.compile(r"\s*<report>(.+)</report>\s*", re.DOTALL)
_CUT = re.compile(r"</?(?:r(?:e(?:p(?:o(?:rt?)?)?)?)?)?$")  # a tag that the length limit has cut
_OPENED = re.compile(r"<\s*/?\s*report\b", re.IGNORECASE)


def wrapped(text: str) -> str:
    """What a policy learns to write where the recipe asks for tags: white space outside the text is lost."""
    return f"<report>{text.strip()}</report>"


def body_of(text: str) -> tuple[str, str | None]:
    """The text inside the tags and None, or the text without tags and what is wrong with its form."""
    whole = _WHOLE.fullmatch(text)
    if whole and not _OPENED.search(whole[1]):
        inside = whole[1].strip()
        return inside, None if any(c.isalnum() for c in inside) else "nothing stands between the tags"
    stripped = _CUT.sub("", _ANY.sub(" ", text)).strip()
    if not _ANY.search(text):
        return stripped, "no <report> … </report>"
    return stripped, "not exactly one <report> … </report> with nothing outside"
