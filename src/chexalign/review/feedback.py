"""What a person preferred → preferences: rows of a feedback file, each checked, the bad ones named and skipped.

A row is `{"study_id", "chosen", "rejected"}`, or `{"study_id", "edited", "original"}` where a person mended a text, or
`{"study_id", "tied": true}`. `reviewer` and `shown` (the two texts that were to be compared) say who judged what: a later row
of the same reviewer about the same texts replaces the earlier one. Anything else in a row is left alone.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chexalign.errors import RecipeError
from chexalign.jsonl import read_lines
from chexalign.progress import say
from chexalign.records import Study

SHOWN = 10  # bad rows printed
FORMS = {"chosen": "rejected", "edited": "original"}  # the preferred text's name → the other's
Key = tuple[str, str, frozenset[str]]  # study, reviewer, texts
JUDGE = "radiologist"  # what pairs.jsonl calls the judge of such a pair


@dataclass(frozen=True)
class Preference:
    """Two texts about one study, whole as they were shown or, where a person mended one, as it was left."""

    study_id: str
    chosen: str
    rejected: str


@dataclass
class Feedback:
    """What a file of a person's answers came to: bad rows are counted and named, the good ones are used."""

    preferences: list[Preference] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # rows, tied, replaced, skipped


def read_feedback(path: Path, studies: Mapping[str, Study]) -> Feedback:
    """The preferences of a feedback file, in its order. Only training studies may teach: others are skipped by name."""
    if not path.is_file():
        raise RecipeError(
            f"pairs.feedback: {path} does not exist; give a file that `chexalign review` or you have written"
        )
    counts: Counter[str] = Counter()
    latest = latest_rows(path, studies, counts)
    preferences = [p for p in map(_preference, latest.values()) if p is not None]
    counts["tied"] = len(latest) - len(preferences)
    return Feedback(preferences, counts)


def latest_rows(path: Path, studies: Mapping[str, Study], counts: Counter[str]) -> dict[Key, dict[str, Any]]:
    """The good rows by what they are about, the latest of each; the bad ones are named and counted."""
    found: dict[Key, dict[str, Any]] = {}
    for number, row in read_lines(path):
        counts["rows"] += 1
        if isinstance(row, str) or (wrong := _wrong(row, studies)):
            counts["skipped"] += 1
            if counts["skipped"] <= SHOWN:
                say(f"{path}:{number}: {row if isinstance(row, str) else wrong}; the row is skipped")
            continue
        key = review_key(row["study_id"], row.get("reviewer"), row.get("shown") or _texts(row))
        counts["replaced"] += key in found
        found.pop(key, None)  # a replaced row stands where the later one is
        found[key] = row
    if (more := counts["skipped"] - SHOWN) > 0:
        say(f"{path}: {more} more rows are skipped")
    return found


def review_key(study_id: str, reviewer: Any, texts: Iterable[str]) -> Key:
    """What a row is about: its study, who judged, and which texts."""
    return study_id, str(reviewer or ""), frozenset(map(_plain, texts))


def _texts(row: Mapping[str, Any]) -> list[str]:
    return [row[n] for pair in FORMS.items() for n in pair if n in row]


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add one row, on the disk before this returns. A last line torn by a crash is left as a bad row of its own."""
    line = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as handle:
        if handle.tell():
            handle.seek(-1, os.SEEK_END)
            line = line if handle.read(1) == b"\n" else "\n" + line
        handle.write(line.encode())
        handle.flush()
        os.fsync(handle.fileno())


def _wrong(row: Mapping[str, Any], studies: Mapping[str, Study]) -> str | None:
    """What is wrong with a row and how to mend it; None if nothing is."""
    study, name = row.get("study_id"), next((n for n in FORMS if n in row), None)
    if not isinstance(study, str) or study not in studies:
        return f"study_id {study!r} is not in studies.jsonl; give the id of one of the run's studies"
    if (split := studies[study].split) != "train":
        return f"study {study!r} is in the {split} split, which is measured and never learnt from; remove the row"
    shown = row.get("shown")
    if shown is not None and not (isinstance(shown, list) and all(isinstance(t, str) for t in shown)):
        return "`shown` is not a list of texts; remove it"
    if name is None:
        return (
            None if row.get("tied") is True else "it has neither chosen and rejected, nor edited and original, nor tied"
        )
    texts = row.get(name), row.get(FORMS[name])
    if not all(isinstance(t, str) and t.strip() for t in texts):
        return f"{name} and {FORMS[name]} must both be texts that are not empty; add what is missing"
    return None if _plain(texts[0]) != _plain(texts[1]) else f"{name} and {FORMS[name]} are the same text; change one"


def _preference(row: Mapping[str, Any]) -> Preference | None:
    name = next((n for n in FORMS if n in row), None)
    return None if name is None else Preference(row["study_id"], row[name].strip(), row[FORMS[name]].strip())


def _plain(text: Any) -> str:
    return " ".join(str(text).split())
