"""Structured answers as sentences: JSON objects, rows of tables, and a heading with a bare status."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

NEGATIVE = {
    "no",
    "none",
    "nil",
    "absent",
    "false",
    "negative",
    "not present",
    "not seen",
    "n",
    "-",
    "0",
    "not identified",
}
POSITIVE = {"yes", "present", "true", "positive", "seen", "y", "+", "1"}
DOUBTFUL = {"possible", "uncertain", "maybe", "equivocal", "indeterminate", "-1"}
HEALTHY = {"normal", "unremarkable", "clear", "intact"}
SILENT = {"", "n/a", "na", "null", "unknown", "not mentioned", "not assessed"}
WRAPPERS = {"report", "text", "output", "answer", "response", "result", "content"}  # their value is the report itself
NAMES = ("finding", "name", "label", "observation", "condition", "disease", "abnormality", "pathology")
STATUSES = ("present", "status", "value", "presence", "exists", "state", "result")
DESCRIBING = ("certainty", "severity", "size", "extent", "side", "laterality", "location", "zone")
_ANATOMY = re.compile(
    r"\b(lungs?|heart|mediastinum|bones?|hil(?:um|a)|diaphragms?|pleura|airways?|trachea|vasculature|silhouette|size|"
    r"structures?|contours?|spaces?|tissues?|abdomen|ribs?|spine|thorax|other|breathing|cardiac|fields?)$",
    re.IGNORECASE,
)
_OPENINGS = 20  # braces that are tried


def statement(name: str, value: str) -> str | None:
    """A sentence for a name and its bare status ("" when it says nothing), or None when the value is a text of its own."""
    word = value.strip().rstrip(".").strip().lower()
    anatomy = bool(_ANATOMY.search(name))
    if word in SILENT:
        return ""
    if name.lower() in ("no finding", "no findings", "normal"):
        return "No finding." if word in POSITIVE else "" if word in NEGATIVE | DOUBTFUL else None
    if word in HEALTHY and anatomy:
        return f"{_capital(name)} {word}."
    if word in NEGATIVE | HEALTHY:
        return "" if anatomy else f"No {_lower(name)}."
    if word in POSITIVE:
        return "" if anatomy else f"{_capital(name)}."
    if word in DOUBTFUL:
        return f"Possible {_lower(name)}."
    return None


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def _lower(name: str) -> str:
    return name if name[1:2].isupper() else name[:1].lower() + name[1:]


def said_of(name: str, value: str) -> str:
    """Name and value as a sentence: a status, or "Name: value."."""
    known = statement(name, value)
    if known is not None:
        return known
    text = value.strip()
    return f"{_capital(name)}: {text}{'' if text[-1:] in '.!?:' else '.'}"


def row_text(head: Sequence[str], cells: Sequence[str]) -> str:
    """One row of a table: name and value, or an object whose fields the head names."""
    if len(cells) == 2:
        return said_of(cells[0], cells[1])
    if len(head) == len(cells):
        return _text_of(dict(zip([h.lower() for h in head], cells, strict=True)))
    return ", ".join(c for c in cells if c) + "."


def json_text(text: str) -> str:
    """The text with every JSON object in it, or a list or a Python dict that is the whole text, as sentences."""
    whole = text.strip()
    if whole[:1] in ("[", "{") and whole[-1:] in ("]", "}"):
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(whole)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            return _text_of(value) if isinstance(value, dict | list) else text
    decoder, at = json.JSONDecoder(), -1
    for _ in range(_OPENINGS):
        at = text.find("{", at + 1)
        if at < 0:
            break
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            continue
        text = f"{text[:at]}{_text_of(value)}{text[end:]}"
    return text


def _text_of(value: Any, name: str = "") -> str:
    if isinstance(value, Mapping):
        return _finding(value) or _joined(_text_of(v, _spelled(str(k))) for k, v in value.items())
    if isinstance(value, list):
        return _joined(_text_of(v, name) for v in value)
    if isinstance(value, bool):
        value = "yes" if value else "no"
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    if not name or name.lower() in WRAPPERS:
        return text.strip()
    return said_of(name, text)


def _finding(row: Mapping[str, Any]) -> str | None:
    """An object that names one finding and says whether it is there, with what else describes it; None for another."""
    fields = {str(k).lower(): v for k, v in row.items()}
    name = next((str(fields[k]) for k in NAMES if isinstance(fields.get(k), str)), None)
    status = next((fields[k] for k in STATUSES if isinstance(fields.get(k), str | int)), None)
    if name is None or status is None:
        return None
    described = " ".join(str(fields[k]) for k in DESCRIBING if isinstance(fields.get(k), str) and fields[k].strip(" -"))
    if isinstance(status, bool):
        status = "yes" if status else "no"
    denied = str(status).strip().lower() in NEGATIVE
    return said_of(name if denied else f"{described} {name}".strip(), str(status))


def _spelled(key: str) -> str:
    """`pleural_effusion` and `pleuralEffusion` as words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key).replace("_", " ").strip()


def _joined(parts: Any) -> str:
    return " ".join(p for p in parts if p)
