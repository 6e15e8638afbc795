"""A report as the rules read it: markup, tables, lists, shorthand and answers ("effusion: none") turned into sentences.

`plain` gives the text and, where anything was changed, the place in the text as given of each of its characters, so that a
mention can be shown where it stands. Sections that do not speak of this image (history, comparison) are left out. The words are
in plain.toml. A text without any such sign is handed back as it is.
"""

from __future__ import annotations

import html
import re
import tomllib
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

_SIGN_CHARACTERS = frozenset(
    '<>{}|*`_"[]()/:?=#\n&'
)  # a text without any of these and of the signs below is read as it is
_SIGNS = (" -", "--", ", no", ", nil", ", abs", "what was", "were a", "were there", "nil", "neg", "none", "bilat")
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.IGNORECASE | re.DOTALL)
_CELL = re.compile(r"</t[dh]>\s*<t[dh][^>]*>", re.IGNORECASE)
_BLOCK = re.compile(r"</?(?:p|br|li|tr|div|h\d|ul|ol|table|tbody|td|th|section)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[a-z]{2,8}|#\d{2,5});", re.IGNORECASE)
_RULE_ROW = re.compile(r"^[ \t]*\|?[ \t:|-]*-{2,}[ \t:|-]*\|?[ \t]*$", re.MULTILINE)
_ROW = re.compile(r"^[ \t]*\|(.*?)\|?[ \t]*$", re.MULTILINE)
_EMPHASIS = re.compile(r"\*\*|__|`+|^[ \t]*#{1,6}[ \t]+", re.MULTILINE)
_JSON = re.compile(r"[\"']?\s*:\s*(?:[\"'\[{]|true|false|null|-?\d)", re.IGNORECASE)
_JSON_STATUS = re.compile(r"\s*,\s*(?:is_)?(?:present|presence|status|value|answer|state)\s*:\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.;](?:\s|\Z)|\n")
_MARK = re.compile(r"(?:(?<=\s)|^)(?:\(?\d{1,2}\)|\([a-h]\)|[a-h]\)|[•·▪◦●➢►])\s*", re.IGNORECASE)
_DASH_BULLET = re.compile(r"^[ \t]*[-*–][ \t]+", re.MULTILINE)
_ITEM = re.compile(r"(?:\s*:\s*|[.,;]?[ \t]*)\n[ \t]*(?:[-*•–]|\d{1,2}[.)])[ \t]+")
_OPEN_DENIAL = re.compile(r"\b(?:no|of|for|without)\Z", re.IGNORECASE)
_BEFORE_SIGN = re.compile(r"\(\s*([+-]|–)\s*\)\s*")
_QUERY = re.compile(r"(?:(?<=\s)|(?<=[(,.;:])|^)\?\s*(?=[a-z])", re.IGNORECASE)
_WAS = re.compile(
    r"\bwhat was (?:once )?(?:previously )?(?:an? |the )?"
    r"(?:(?:very )?(?:large|small|tiny|big|moderate|massive|trace|huge|mild|severe)(?:[ -]sized)? )?",
    re.IGNORECASE,
)
_WERE = re.compile(r"(?:\A|(?<=[.;\n]))\s*were (?:an?|there(?: an?)?)\s+", re.IGNORECASE)
_BESIDE = re.compile(r"(?<=\w)\s+/\s+(?=[a-z])|\s+[–—]\s+|\s+-{1,2}\s+", re.IGNORECASE)


@dataclass
class _Draft:
    """A text being rewritten, and the place of each of its characters in the text as given."""

    text: str
    at: Sequence[int]

    def sub(self, pattern: re.Pattern[str], new: str | Callable[[re.Match[str]], str | None], group: int = 0) -> None:
        """Replace what `group` of each match spans; a function may answer None to leave a match alone."""
        parts: list[str] = []
        places: list[int] = []
        done = 0
        for m in pattern.finditer(self.text):
            put = new if isinstance(new, str) else new(m)
            start, end = m.span(group)
            if put is None or start < done:
                continue
            parts += [self.text[done:start], put]
            places += [*self.at[done:start], *([self.at[start] if start < len(self.at) else len(self.at)] * len(put))]
            done = end
        if parts:
            self.text = "".join([*parts, self.text[done:]])
            self.at = [*places, *self.at[done:]]


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    rows = tomllib.loads(resources.files(__package__).joinpath("plain.toml").read_text(encoding="utf-8"))
    answers, other, report = rows["answers"], rows["headings"]["other"], rows["headings"]["report"]
    values = "|".join(f"(?P<{k}>{answers[k]})" for k in ("absent", "present", "doubtful"))
    key, end = r"(?P<key>[a-z]+)\)?[\"']?", r"\)?(?=\s*(?:[,.;|\"'}\n]|\Z))"
    shorthand = "|".join(re.escape(k) for k in sorted(rows["shorthand"], key=len, reverse=True))
    made = {
        "heading": rf"(?:\A|(?<=[\n.;!?]))\s*(?:(?P<other>{other})|(?:{report}))\s*:",
        "answer": rf"\b{key}(?P<rest>\s*(?::|=|\(|,|\s-{{1,2}}|[–—])\s*(?:{values}){end})",
        "bare answer": rf"\b{key}(?P<rest>\s+(?:{answers['short']}){end})",
        "no key": rf"(?:{answers['keys']})",
        "shorthand": rf"(?<![\w/])(?:{shorthand})(?![a-z])",
        "denied list": rf"\b(?:{rows['lists']['denied']})\s*:\s*(?:\n[ \t]*(?:[-*•–]|\d{{1,2}}[.)])[ \t]+[^\n]+)+",
        "cue comma": r"\A\s*,\s*(?:no|none|nil|negative|neg|absent)\b",
    }
    return {name: re.compile(p, re.IGNORECASE) for name, p in made.items()}


@cache
def _shorthand() -> dict[str, str]:
    rows = tomllib.loads(resources.files(__package__).joinpath("plain.toml").read_text(encoding="utf-8"))
    return dict(rows["shorthand"])


def plain(text: str) -> tuple[str, Sequence[int] | None]:
    """The text as sentences, and the place of each of its characters in `text`; None where nothing was changed."""
    lowered = text.lower()
    if text.isascii() and _SIGN_CHARACTERS.isdisjoint(text) and not any(sign in lowered for sign in _SIGNS):
        return text, None
    draft = _Draft(text, range(len(text)))
    if not text.isascii():
        _letters(draft)
    _markup(draft)
    _denied_lists(draft)
    _left_out_sections(draft)
    _signs(draft)
    _answers(draft)
    draft.sub(_patterns()["shorthand"], lambda m: _shorthand()[m[0].lower()] + " ")
    draft.sub(_BESIDE, ", ")
    return draft.text, None if draft.text == text else draft.at


def _letters(draft: _Draft) -> None:
    """Full-width letters and ligatures as plain ones; soft hyphens and marks of no width go."""
    wide = re.compile(r"[^\x00-\x7f]")

    def one(m: re.Match[str]) -> str | None:
        c = m[0]
        if c in "\u2019\u2018":
            return "'"
        if c == "×":
            return "x"
        if c == "\u00ad" or unicodedata.category(c) == "Cf":
            return ""
        new = unicodedata.normalize("NFKC", c)
        return new if new != c else None

    draft.sub(wide, one)


def _markup(draft: _Draft) -> None:
    if "<" in draft.text:
        draft.sub(_THOUGHT, "")
        draft.sub(_CELL, ": ")
        draft.sub(_BLOCK, "\n\n")
        draft.sub(_TAG, "")
    if "&" in draft.text:
        draft.sub(_ENTITY, lambda m: html.unescape(m[0]).replace("\xa0", " "))
    if "|" in draft.text:
        draft.sub(_RULE_ROW, "")
        draft.sub(_ROW, lambda m: re.sub(r"\s*\|\s*", ", ", m[1].strip().replace("|", ": ", 1)) + ".")
    draft.sub(_EMPHASIS, "")
    if "{" in draft.text and _JSON.search(draft.text):
        draft.sub(re.compile(r"[{}\[\]]"), "\n\n")
        draft.sub(re.compile('["_]'), " ")
        draft.sub(_JSON_STATUS, ": ")


def _denied_lists(draft: _Draft) -> None:
    """A list under a denial ("No evidence of:") is one denied enumeration: each of its lines is denied."""
    if ":" not in draft.text or "\n" not in draft.text:
        return
    spans = [m.span() for m in _patterns()["denied list"].finditer(draft.text)]

    def joined(m: re.Match[str]) -> str | None:
        if not any(start <= m.start() and m.end() <= end for start, end in spans):
            return None
        if ":" not in m[0]:
            return ", "
        return " " if _OPEN_DENIAL.search(draft.text, 0, m.start()) else ": no "

    if spans:
        draft.sub(_ITEM, joined)


def _left_out_sections(draft: _Draft) -> None:
    """History, indication, comparison and the like: up to the next heading, or where none follows, the one sentence."""
    if ":" not in draft.text:
        return
    headings = list(_patterns()["heading"].finditer(draft.text))
    spans = []
    for n, m in enumerate(headings):
        if m["other"] is None:
            continue
        if n + 1 < len(headings):
            spans.append((m.start(), headings[n + 1].start()))
        else:
            end = _SENTENCE_END.search(draft.text, m.end())
            spans.append((m.start(), end.end() if end else len(draft.text)))
    for start, stop in reversed(spans):
        draft.sub(re.compile(re.escape(draft.text[start:stop])), " . ")


def _signs(draft: _Draft) -> None:
    first = draft.text.lstrip()[:1] == "("
    if "(" in draft.text:
        sign = {"+": " is present. ", "-": " is absent. ", "–": " is absent. "}
        start = {"+": " . ", "-": " . no ", "–": " . no "}
        draft.sub(_BEFORE_SIGN, lambda m: (start if first else sign)[m[1]])
    draft.sub(_DASH_BULLET, "\n\n")
    draft.sub(_MARK, ". ")
    if "?" in draft.text:
        draft.sub(_QUERY, "possible ")
    draft.sub(_WERE, " if a ")
    if "hat was" in draft.text:
        draft.sub(_WAS, "")


def _answers(draft: _Draft) -> None:
    """ "Effusion: none, consolidation: yes" → "Effusion is absent. consolidation is present." """
    known = _patterns()

    def said(m: re.Match[str]) -> str | None:
        if known["no key"].fullmatch(m["key"]):
            return None
        if m["absent"] is None and m["rest"].lstrip().startswith(","):
            return None
        return f" is {next(k for k in ('absent', 'present', 'doubtful') if m[k] is not None)}. "

    draft.sub(known["answer"], said, group=known["answer"].groupindex["rest"])
    bare = known["bare answer"]
    draft.sub(bare, lambda m: None if known["no key"].fullmatch(m["key"]) else " is absent. ", bare.groupindex["rest"])
