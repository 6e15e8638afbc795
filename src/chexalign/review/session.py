"""A person compares two sampled texts of a study, blinded: what is shown, and what an answer writes.

Every answer is on the disk before the next study is shown, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from chexalign.data import unit_hash
from chexalign.errors import WorkError
from chexalign.judges.contract import is_blank
from chexalign.policies.presets import most_images
from chexalign.records import Study
from chexalign.report.render import fill_text, style_sheet
from chexalign.review.feedback import append, latest_rows, review_key
from chexalign.run.folder import Run
from chexalign.run.task import reference

FORMS = {"a": ("chosen", 0), "b": ("chosen", 1), "edit_a": ("edited", 0), "edit_b": ("edited", 1)}
OTHER = {"chosen": "rejected", "edited": "original"}
SAID = {"chosen": "you preferred report {}", "edited": "you mended report {}", "tied": "you found no difference"}


@dataclass(frozen=True)
class Item:
    """A study and two of its sampled texts, in the order in which they are shown."""

    study: Study
    texts: tuple[str, str]


@dataclass
class Session:
    """What the server serves, and what has been answered: key → row."""

    run: Run
    items: list[Item]
    path: Path
    reviewer: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    rows: dict[Any, dict[str, Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def row(self, item: Item) -> dict[str, Any] | None:
        """This reviewer's answer about an item, None where it is still open. Other reviewers' answers are not seen."""
        return self.rows.get(review_key(item.study.study_id, self.reviewer, item.texts))

    def next(self, after: int = -1) -> int | None:
        """The first item without an answer behind `after`, or else from the beginning."""
        order = [*range(after + 1, len(self.items)), *range(after + 1)]
        return next((i for i in order if self.row(self.items[i]) is None), None)


def open_session(run: Run, path: Path, reviewer: str) -> Session:
    """All studies with two different texts, in a seeded order; the sides are drawn by the study's id."""
    studies = run.studies_by_id()
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    for c in run.completions():
        if not is_blank(c.text):
            texts[c.study_id].setdefault(" ".join(c.text.split()), c.text)
    seed, items = run.recipe.seed, []
    for name, found in sorted(texts.items(), key=lambda entry: unit_hash("review", seed, entry[0])):
        if len(found) > 1 and studies[name].split == "train":
            one, two, *_ = found.values()
            items.append(Item(studies[name], (one, two) if unit_hash("side", seed, name) < 0.5 else (two, one)))
    if not items:
        raise WorkError(f"{run.path('completions.jsonl')} holds no study with two different texts; raise sample.n")
    session = Session(run, items, path, reviewer)
    if path.exists():
        session.rows = dict(latest_rows(path, studies, Counter()))
    return session


def answer(session: Session, form: Mapping[str, str]) -> int:
    """Write one answer of the form; returns the item's number. Raises ValueError saying what is wrong with it."""
    given, verdict = form.get("i", ""), form.get("verdict", "")
    if not given.isdecimal() or int(given) >= len(session.items):
        raise ValueError("there is no such study")
    item = session.items[number := int(given)]
    row: dict[str, Any] = {"study_id": item.study.study_id}
    for side, text in enumerate(item.texts):
        if verdict != f"edit_{'ab'[side]}" and form.get(f"text_{side}", text).split() != text.split():
            raise ValueError(f"report {'AB'[side]} was changed: save that with the button below it, or undo it first")
    if verdict in FORMS:
        name, side = FORMS[verdict]
        text = item.texts[side] if name == "chosen" else form.get(f"text_{side}", "").replace("\r\n", "\n").strip()
        other = item.texts[1 - side] if name == "chosen" else item.texts[side]
        if is_blank(text) or text.split() == other.split():
            raise ValueError("the report was not changed: mend its text first, or choose one of the two")
        row |= {name: text, OTHER[name]: other}
    elif verdict == "tie":
        row["tied"] = True
    else:
        raise ValueError("choose one of the buttons")
    row |= {
        "shown": list(item.texts),
        "reviewer": session.reviewer,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with session.lock:
        append(session.path, row)
        session.rows[review_key(item.study.study_id, session.reviewer, item.texts)] = row
    return number


def page(session: Session, number: int | None, nonce: str) -> str:
    """The page of one item, or of the end where there is none left."""
    item = None if number is None else session.items[number]
    return fill_text(
        (files("chexalign") / "review/page.html.j2").read_text(encoding="utf-8"),
        css=style_sheet(),
        nonce=nonce,
        number=number,
        item=item,
        images=range(0 if item is None else len(item.study.images[: most_images(session.run.recipe)])),
        impression=session.run.recipe.task == "impression",
        on_file="" if item is None else reference(session.run.recipe, item.study),
        said="" if item is None else _said(item, session.row(item)),
        done=sum(session.row(i) is not None for i in session.items),
        total=len(session.items),
        path=str(session.path),
    )


def _said(item: Item, row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    name = next((n for n in OTHER if n in row), "tied")
    text = row.get("chosen", row.get("original"))  # the one of the two that the answer is about
    return SAID[name].format("AB"[item.texts.index(text)] if text in item.texts else "")
