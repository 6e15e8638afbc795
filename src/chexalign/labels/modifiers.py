"""Where a finding is, how big and how bad: each modifier belongs to the finding it stands next to.

Between two findings the modifiers before the last "and", comma or stop belong to the first, those after it to the
second: "effusion in the left base and small right pneumothorax". Without such a break they belong to the first after a
preposition ("opacity in the left base likely atelectasis") and to the second otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chexalign.labels.context import Reading
from chexalign.labels.phrases import Item

KINDS = ("side", "zone", "size", "severity", "change", "count")  # change: only in the tables of finding_f1_weighted
PLACE = ("side", "zone")
BREAKS = ("stop", "comma", "join")
SIZED = frozenset({"Pleural Effusion", "Pneumothorax", "Lung Lesion"})  # here "moderate" is a size, else a severity
NO_SIDE = frozenset({"Cardiomegaly", "Enlarged Cardiomediastinum"})
NO_ZONE = NO_SIDE | {"Support Devices", "Fracture"}
COUNTED = frozenset({"Lung Lesion", "Fracture", "nodule", "mass", "cavity", "granuloma", "rib or bone fracture"})
LUNG_ZONES = frozenset({"apical", "upper", "middle", "lower", "basal", "hilar", "retrocardiac"})
TOO_MANY, SEVERAL = 4, "several"  # zones said of one finding: beyond three they place it nowhere # our choice
ALONE = NO_ZONE | {"Edema"}  # neither lends its place to a neighbour nor borrows one

Modifiers = dict[str, str]


@dataclass(frozen=True)
class Traits:
    """Which labels have no side, no zone, no place to lend or borrow, and whose "moderate" is a size."""

    no_side: frozenset[str]
    no_zone: frozenset[str]
    alone: frozenset[str]
    sized: frozenset[str]
    doubt_lends: bool = False  # "left basal opacity, perhaps pneumonia": the pneumonia is at the left base too


CHEXPERT = Traits(NO_SIDE, NO_ZONE, ALONE, SIZED)


def describe(items: Sequence[Item], readings: Sequence[Reading], traits: Traits = CHEXPERT) -> list[Modifiers]:
    """The modifiers of each reading of a sentence. Readings of the same words ("nodular opacity") share theirs."""
    spans: list[tuple[int, int]] = []
    owner: list[int] = []  # which span each reading has
    for r in readings:
        if spans and items[r.first].first == items[spans[-1][0]].first:
            spans[-1] = (spans[-1][0], max(r.last, spans[-1][1]))
        else:
            spans.append((r.first, r.last))
        owner.append(len(spans) - 1)
    near = _near(items, spans)
    described = [_choose(near[span], r.label, traits) for r, span in zip(readings, owner, strict=True)]
    for n in range(len(readings) - 1):
        _lend(described[n], readings[n], described[n + 1], readings[n + 1], items, traits)
    for n in range(len(readings) - 1, 0, -1):
        _lend(described[n], readings[n], described[n - 1], readings[n - 1], items, traits)
    return described


def _lend(
    place: Modifiers, lender: Reading, own: Modifiers, borrower: Reading, items: Sequence[Item], traits: Traits
) -> None:
    """Two findings said in one breath share a place when only one of them has it: "scar or atelectasis at the base"."""
    between = items[min(lender.last, borrower.last) + 1 : max(lender.first, borrower.first)]
    alike = lender.status == borrower.status or (traits.doubt_lends and lender.status and borrower.status)
    alike = alike or any(item.kind == "over" for item in between)  # "atelectasis over infection at the left base"
    if not alike or {lender.label, borrower.label} & traits.alone or any(k in own for k in PLACE):
        return
    if not any(item.kind == "stop" for item in between):
        own.update({k: v for k, v in place.items() if k in PLACE})


def _near(items: Sequence[Item], spans: Sequence[tuple[int, int]]) -> list[list[Item]]:
    """The items in, just before and just after each span, each gap between two spans being shared out."""
    near: list[list[Item]] = [list(items[first : last + 1]) for first, last in spans]
    left = 0
    for n, (first, last) in enumerate(spans):
        gap = items[left : max(first, left)]
        before, after = _split(gap) if n else ((), _nearest(gap))
        if n:
            near[n - 1] += before
        near[n] += after
        left = max(left, last + 1)
    if near:
        near[-1] += _without_what_is_well(items[left:])
    return near


def _without_what_is_well(rest: Sequence[Item]) -> Sequence[Item]:
    """What follows the last finding, up to a region that is called well: "left effusion, right base clear"."""
    well = next((k for k, item in enumerate(rest) if item.kind == "fine"), None)
    if well is None:
        return rest
    start = max((k for k in range(well) if rest[k].kind in BREAKS), default=None)
    return rest if start is None else rest[:start]


def _split(gap: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]]:
    """What of a gap belongs to the finding before it, and what to the one after it."""
    described = next((k for k, item in enumerate(gap) if item.kind in KINDS), len(gap))
    for k in range(len(gap) - 1, -1, -1):
        if gap[k].kind in BREAKS:
            return gap[:k], gap[k + 1 :]
        if gap[k].kind in ("link", "before") and described < k:
            return gap[:k], gap[k:]
    return (gap, ()) if any(item.kind == "at" for item in gap) else ((), gap)


def _nearest(gap: Sequence[Item]) -> Sequence[Item]:
    """What stands before a sentence's first finding: what follows the last break, or all of it if that is bare."""
    described = False
    for k in range(len(gap) - 1, -1, -1):
        if gap[k].kind == "other":
            return gap[k + 1 :]
        described = described or gap[k].kind in KINDS
        if described and gap[k].kind in BREAKS:
            return gap[k + 1 :]
    return gap


def _choose(items: Sequence[Item], label: str, traits: Traits) -> Modifiers:
    """The first value of each kind; two sides make a bilateral finding. A word is a size or a severity, not both."""
    chosen: Modifiers = {}
    taken: set[int] = set()
    for kind in ("side", "zone", "size", "severity") if label in traits.sized else ("side", "zone", "severity", "size"):
        values = [i for i in items if i.kind == kind and (kind in PLACE or i.first not in taken)]
        if not values or (kind == "side" and label in traits.no_side) or (kind == "zone" and label in traits.no_zone):
            continue
        chosen[kind] = values[0].value
        if kind == "side" and len({i.value for i in values}) > 1:
            chosen[kind] = "bilateral"
        if kind == "zone" and len({i.value for i in values} & LUNG_ZONES) >= TOO_MANY:
            chosen[kind] = SEVERAL
        taken.update(i.first for i in values if kind not in PLACE)
    if label in COUNTED and (counts := [i.value for i in items if i.kind == "count"]):
        chosen["count"] = counts[0]
    if changes := [i.value for i in items if i.kind == "change"]:
        chosen["change"] = changes[0]
    return chosen
