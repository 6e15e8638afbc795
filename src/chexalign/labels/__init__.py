"""Rule labels in the CheXpert-14 scheme: what a report says about 14 observations, where, how big and how bad.

The scheme (labels, present / absent / uncertain, how mentions are summed up) is CheXpert's (Irvin et al., AAAI 2019);
phrases, cues and code are ours. It is not CheXpert's labeller and not CheXbert: call it `chexpert_rule`. It differs on
purpose: "no new X" is absent, a stable silhouette is no mention, "top normal" is normal, and a nodular opacity is an
opacity and an uncertain lesion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from chexalign.labels import tables
from chexalign.labels.context import ABSENT, PRESENT, UNCERTAIN, read
from chexalign.labels.coordination import say_again
from chexalign.labels.measures import measures_of, size_of
from chexalign.labels.modifiers import describe
from chexalign.labels.phrases import sentences
from chexalign.records import LABELS as LABELS

MEASURED = frozenset({"Lung Lesion", "Pneumothorax"})  # a measure near these is their size
FINDINGS = LABELS[:-1]  # the 13 that name something


@dataclass(frozen=True, slots=True)
class Mention:
    """One place in a text that names a finding; `start` and `end` are characters of the text as given."""

    label: str
    status: int  # 1 present, 0 absent, -1 uncertain
    start: int
    end: int
    side: str | None = None  # left, right, bilateral
    zone: str | None = None  # apical, upper, middle, lower, basal, hilar, retrocardiac
    size: str | None = None  # small, moderate, large
    severity: str | None = None  # mild, moderate, severe
    count: str | None = None  # one, two, many: of lesions and fractures
    size_mm: float | None = None  # of lesions and pneumothoraces; measures.SEVERAL where too many are given


def find_mentions(text: str) -> list[Mention]:
    """Every finding a report mentions, in the order of the text. "Nodular opacity" names two at one place."""
    return list(_mentions(text))


@lru_cache(maxsize=20_000)
def _mentions(text: str) -> tuple[Mention, ...]:
    found, measures = [], measures_of(text)
    for items in map(say_again, sentences(text, tables.trie())):
        readings = read(items)
        for reading, modifiers in zip(readings, describe(items, readings), strict=True):
            start, end = items[reading.first].start, items[reading.last].end
            size = size_of(start, end, measures) if reading.label in MEASURED else None
            found.append(Mention(reading.label, reading.status, start, end, **modifiers, size_mm=size))
    return tuple(found)


def label_report(text: str) -> dict[str, int | None]:
    """One status per label, in the order of LABELS; None where nothing is said. A text without words has no labels."""
    if not any(c.isalnum() for c in text):
        return dict.fromkeys(LABELS)
    return sum_up(find_mentions(text))


def sum_up(mentions: Iterable[Mention]) -> dict[str, int | None]:
    """CheXpert's rule: 1 beats -1 beats 0. No Finding is 1 unless a label other than Support Devices is 1 or -1."""
    said: dict[str, set[int]] = {}
    for mention in mentions:
        said.setdefault(mention.label, set()).add(mention.status)
    labels: dict[str, int | None] = {
        label: next((s for s in (PRESENT, UNCERTAIN, ABSENT) if s in said.get(label, ())), None) for label in FINDINGS
    }
    ill = any(labels[label] in (PRESENT, UNCERTAIN) for label in FINDINGS if label != "Support Devices")
    labels["No Finding"] = None if ill else 1
    return labels


def positive_set(labels: Mapping[str, int | None], *, uncertain_is_positive: bool = True) -> frozenset[str]:
    """The labels that hold, No Finding among them. Uncertain counts as positive, as CheXbert's report mode has it."""
    positive = (PRESENT, UNCERTAIN) if uncertain_is_positive else (PRESENT,)
    return frozenset(label for label, status in labels.items() if status in positive)
