"""Attacks on a judge: edits of reports whose effect a good judge must get right.

`CASES` are hand-written pairs; `EDITS` change any report and say what the edit deserves. An edit returns None where it
does not apply, for example swapping sides in a report that names none.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from chexalign.labels import FINDINGS, find_mentions

TEMPLATE = (
    "The heart is normal in size. The mediastinum is unremarkable. The lungs are clear. "
    "There is no pleural effusion or pneumothorax."
)
NORMAL = (
    " The heart is normal in size. The mediastinum is within normal limits. No pneumothorax is seen."
    " The visualized bones are intact. The trachea is midline."
)
SHOTGUN = " ".join(f"There is {name.lower()}." for name in FINDINGS)
SWAPS = {  # word → its opposite, for one kind of edit each
    "side": {"left": "right", "right": "left"},
    "extent": {"mild": "severe", "severe": "mild", "mildly": "severely", "severely": "mildly", "small": "large"}
    | {"large": "small", "minimal": "marked", "marked": "minimal"},
}

# name, reference, report, what the report deserves
CASES = (
    ("identity", "Small left pleural effusion.", "Small left pleural effusion.", "full marks"),
    ("denial, one sentence", "Small left pleural effusion.", "No left pleural effusion.", "little"),
    (
        "denial inside four sentences",
        "Heart size is normal. There is a left pleural effusion. No pneumothorax. The bones are intact.",
        "Heart size is normal. There is no left pleural effusion. No pneumothorax. The bones are intact.",
        "little",
    ),
    ("mild becomes severe", "Mild pulmonary edema.", "Severe pulmonary edema.", "less than full marks"),
    ("left becomes right", "Left pleural effusion.", "Right pleural effusion.", "less than full marks"),
    ("normal template for effusion", "Large right pleural effusion. Cardiomegaly.", TEMPLATE, "little"),
    ("correct paraphrase", "Mild cardiomegaly.", "The cardiac silhouette is mildly enlarged.", "full marks"),
    ("one of two omitted", "Pulmonary edema. Left pleural effusion.", "Pulmonary edema.", "less than full marks"),
    ("pneumothorax invented", "No acute disease.", "No acute disease. Large right pneumothorax.", "little"),
    ("three copies", "Small left pleural effusion.", "Small left pleural effusion. " * 3, "full marks or less"),
    ("every finding listed", "Small left pleural effusion. Mild cardiomegaly.", SHOTGUN, "little"),
    ("words shuffled", "Small left effusion. No pneumothorax.", "pneumothorax effusion No left small", "little"),
    ("a full stop", "Small left pleural effusion.", ".", "nothing"),
    ("words about nothing", "No acute disease. The lungs are clear.", "Please write the report.", "nothing"),
)  # fmt: skip

Edit = Callable[[str], str | None]


def swap(kind: str) -> Edit:
    """An edit by the word table SWAPS[kind]; it gives None for a text in which no word changes."""
    words = SWAPS[kind]
    pattern = re.compile(rf"\b({'|'.join(words)})\b", re.IGNORECASE)

    def edit(text: str) -> str | None:
        changed = pattern.sub(lambda m: words[m[0].lower()], text)
        return changed if changed.lower() != text.lower() else None

    return edit


def sentences(text: str) -> list[str]:
    """Split after a full stop or semicolon and white space; the marks stay."""
    return [s for s in re.split(r"(?<=[.;])\s+", text.strip()) if s]


def _present(text: str) -> list[int]:
    """The sentences that state a finding."""
    return [k for k, s in enumerate(sentences(text)) if any(m.status == 1 for m in find_mentions(s))]


def deny(text: str) -> str | None:
    """The first stated finding is denied instead."""
    parts, at = sentences(text), _present(text)
    if not at:
        return None
    named = next(m for m in find_mentions(parts[at[0]]) if m.status == 1)
    return " ".join([*parts[: at[0]], f"There is no {named.label.lower()}.", *parts[at[0] + 1 :]])


def omit(text: str) -> str | None:
    """The first sentence that states a finding is left out, where another sentence remains."""
    parts, at = sentences(text), _present(text)
    return " ".join(parts[: at[0]] + parts[at[0] + 1 :]) if at and len(parts) > 1 else None


def invent(text: str) -> str | None:
    """A large pneumothorax is added where the text states none."""
    stated = any(m.label == "Pneumothorax" and m.status for m in find_mentions(text))
    return None if stated else f"{text} There is a large right pneumothorax."


def shuffled(text: str) -> str:
    """The same words in an order that depends on their number alone (seed 0): meaning is lost, counts are kept."""
    words = text.split()
    random.Random(0).shuffle(words)
    return " ".join(words)


def reordered(text: str) -> str | None:
    """Sentences from last to first: a good judge changes little. None for one sentence."""
    parts = sentences(text)
    return " ".join(reversed(parts)) if len(parts) > 1 else None


# name → (edit, what the edited report deserves beside the untouched one)
EDITS: dict[str, tuple[Edit, str]] = {
    "sentences in reverse order": (reordered, "the same"),
    "five normal sentences added": (lambda t: t + NORMAL, "no more"),
    "twice over": (lambda t: f"{t} {t}", "no more"),
    "three times over": (lambda t: f"{t} {t} {t}", "no more"),
    "left and right swapped": (swap("side"), "less"),
    "mild and severe, small and large swapped": (swap("extent"), "less"),
    "first finding left out": (omit, "less"),
    "first finding denied": (deny, "less"),
    "large pneumothorax added": (invent, "less"),
    "words shuffled": (shuffled, "less"),
    "every finding listed": (lambda t: SHOTGUN, "less"),
    "a full stop": (lambda t: ".", "nothing"),
}
