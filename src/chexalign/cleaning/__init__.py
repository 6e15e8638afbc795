"""What a model writes around its report is taken away: thoughts, fences, JSON, HTML, Markdown, bracketed headings.

An ordinary report comes back unchanged, byte for byte. Values in a structure become sentences, since a judge reads those:
`{"effusion": false}` is "No effusion.", and CheXagent-2's `[Breathing: Pneumothorax] None.` is "No pneumothorax.".
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Sequence

from chexalign.cleaning.structured import json_text, row_text, statement

ROUNDS = 4  # structures inside structures that are opened # our choice

_MARKUP = re.compile(
    r"[<>`{\[|#&\u00a0\u00ad\u200b-\u200d\u2060\u3000\ufb00-\ufb06\ufeff\uff01-\uff5e]|\*\*|__|^ *\*", re.M
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")
_WIDE = re.compile("[\u00a0\u3000\ufb00-\ufb06\uff01-\uff5e]+")
_THOUGHT = r"(?:think|thinking|thought|reasoning|scratchpad)"
_CLOSED_THOUGHT = re.compile(rf"<({_THOUGHT})>.*?</\1>", re.S | re.I)
_END_OF_THOUGHT = re.compile(rf"^.*</{_THOUGHT}>", re.S | re.I)  # a chat template may have written the opening tag
_CUT_THOUGHT = re.compile(rf"<{_THOUGHT}>.*$", re.S | re.I)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*\w*[ \t]*$\n?", re.M)
_INLINE_FENCE = re.compile(r"```(?:json|text|markdown|html|xml)?|`")
_SECTION_TAG = re.compile(r"<(findings|impression|conclusion)\b[^<>]*>", re.I)
_BREAK = re.compile(r"\s*(?:<br\s*/?>|</(?:p|li|div|h[1-6]|tr|ul|ol|table|findings|impression|conclusion)>)\s*", re.I)
_ROW, _CELL = re.compile(r"\s*<tr\b[^<>]*>\s*", re.I), re.compile(r"\s*</t[dh]>\s*", re.I)
_TAG = re.compile(
    r"</?(?:p|b|i|u|em|strong|span|div|ul|ol|li|h[1-6]|table|thead|tbody|tr|td|th|html|body|head|font|small|sup|sub|pre|code|hr|a"
    r"|report|answer|output|response|findings|impression|conclusion)\b[^<>]*>",
    re.I,
)
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,5});")
_BOLD = re.compile(r"\*\*|__")
_TITLE = re.compile(r"^[ \t]*#{1,6}[ \t]+", re.M)
_STAR = re.compile(r"^([ \t]*)\*[ \t]+", re.M)
_TABLE = re.compile(r"(?:^[ \t]*\|.*(?:\n|\Z))+", re.M)
_RULER = re.compile(r"[\s|:-]*-{2,}[\s|:-]*")
_PLACES = r"Airways?|Breathing|Cardiac|Circulation|Diaphragm|Disability|Everything else|Lungs?|Pleura|Heart|Mediastinum"
_ALONE = rf"(?:{_PLACES}|Bones?|Devices|Other|Findings|Impression)"
_HEADING = re.compile(rf"\[((?:[A-Z][^\[\]:\n]{{0,40}}:[ ]?[^\[\]\n]{{1,60}})|{_ALONE})\][ \t]*")


def _characters(text: str) -> str:
    """Invisible characters go; full-width letters, ligatures and hard spaces become their plain forms."""
    return _WIDE.sub(lambda m: unicodedata.normalize("NFKC", m[0]), _INVISIBLE.sub("", text))


def _thoughts(text: str) -> str:
    """What stands between thinking tags goes; a thought that was cut at the length limit takes all that follows."""
    return _CUT_THOUGHT.sub("", _END_OF_THOUGHT.sub("", _CLOSED_THOUGHT.sub("", text)))


def _fences(text: str) -> str:
    return _INLINE_FENCE.sub("", _FENCE.sub("", text))


def _html(text: str) -> str:
    """Tags of HTML go, the end of a block is a new line, entities are characters; "<5 mm" stays."""
    text = _ROW.sub("\n| ", _SECTION_TAG.sub(lambda m: f"{m[1].capitalize()}: ", text))
    text = _TAG.sub("", _BREAK.sub("\n", _CELL.sub(" | ", text)))
    return _characters(_ENTITY.sub(lambda m: html.unescape(m[0]), text))


def _markdown(text: str) -> str:
    """Bold marks and the signs of titles and bullets go; a table's rows are sentences."""
    text = _STAR.sub(r"\1- ", _TITLE.sub("", _BOLD.sub("", text)))
    return _TABLE.sub(lambda m: _table(m[0]), text)


def _table(lines: str) -> str:
    rows = [[c.strip() for c in line.strip().strip("|").split("|")] for line in lines.splitlines()]
    ruler = next((i for i, line in enumerate(lines.splitlines()) if _RULER.fullmatch(line)), None)
    head = rows[ruler - 1] if ruler else []
    body = rows if ruler is None else rows[ruler + 1 :]
    return "".join(f"{row_text(head, row)}\n" for row in body if any(row))


def _headings(text: str) -> str:
    """`[Place: finding] text` is the text; a bare status after it is a statement about the finding."""
    found = list(_HEADING.finditer(text))
    if not found:
        return text
    parts, ends = [text[: found[0].start()]], [m.start() for m in found[1:]] + [len(text)]
    for heading, end in zip(found, ends, strict=True):
        body = text[heading.end() : end]
        said = statement(heading[1].split(":")[-1].strip(), body.strip())
        parts.append(body if said is None else said + (body[len(body.rstrip()) :] or " "))
    return "".join(parts)


RULES: dict[str, Callable[[str], str]] = {
    "characters": _characters,
    "thoughts": _thoughts,
    "fences": _fences,
    "json": json_text,
    "html": _html,
    "markdown": _markdown,
    "headings": _headings,
}
MARKUP = tuple(name for name in RULES if name != "headings")  # what no radiologist's report holds


def clean(text: str, rules: Sequence[str] = tuple(RULES)) -> str:
    """The report in what a model wrote; the same text where it holds no markup. `clean(clean(x)) == clean(x)`.

    `rules` name the entries of RULES that are applied, in the order of RULES.
    """
    for _ in range(ROUNDS):
        if not _MARKUP.search(text):
            return text
        before = text
        for name, rule in RULES.items():
            text = rule(text) if name in rules else text
        if text == before:
            return text
        text = re.sub(r"[ \t]{2,}", " ", text).strip()
    return text
