"""What one sentence says about each finding: present, absent or uncertain.

ConText's idea (Harkema et al., J Biomed Inform 2009) in one pass: a cue such as "no" sets the scope for the findings
after it, up to the next `stop`; a cue such as "is not seen" looks back. Among competing cues "cannot be excluded" beats
denial, and denial beats doubt. The words are in cues.toml.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from chexalign.labels.phrases import Item

PRESENT, ABSENT, UNCERTAIN = 1, 0, -1
RANK = {"plain": 0, "doubtful": 1, "absent": 2, "not_excluded": 3, "elsewhere": 4}
STATUS = {"plain": PRESENT, "doubtful": UNCERTAIN, "absent": ABSENT, "not_excluded": UNCERTAIN}  # elsewhere: no mention
NEW_STATEMENT = {  # what has to follow a comma or an "and" for a denial to end there
    "comma": ("size", "severity", "side", "zone", "anew", "article"),
    "join": ("anew", "article"),
}
# Reach in words, `# our choice` all: long enough for real sentences, short enough that a text without stops stays fast.
LOOK_BACK = 3  # from an organ to the adjective before it
LOOK_AHEAD = 9  # from an organ to the adjective after it
DOUBT_AHEAD = 5  # from a finding to a doubt after it
CUE_AHEAD = 40  # from a finding to any cue after it


class Reading(NamedTuple):
    """One finding as read: the items [first, last] of the sentence name it."""

    label: str
    status: int
    first: int
    last: int


def read(items: Sequence[Item]) -> list[Reading]:
    """Every finding a sentence mentions, with its status, in the order of the sentence."""
    in_force = scopes(items)
    found: list[Reading] = []
    for k, item in enumerate(items):
        if item.kind == "anatomy":
            reading = _organ(items, in_force, k)
        elif item.kind in ("says", "hints", "implies"):
            reading = _named(items, in_force[k], k)
        else:
            continue
        if reading is not None:
            found.append(reading)
    return found


def scopes(items: Sequence[Item]) -> list[str]:
    """The scope in force at each item."""
    scope, found = "plain", []
    for k, item in enumerate(items):
        if item.kind == "stop" or _starts_anew(items, k):
            scope = "plain"
        elif item.kind == "before":
            scope = _strongest(item.value, scope)
        found.append(scope)
    return found


def _strongest(a: str, b: str) -> str:
    return a if RANK[a] >= RANK[b] else b


def _starts_anew(items: Sequence[Item], k: int) -> bool:
    """A comma or "and" ends a denial when a described finding follows and no list goes on: "no X, small left Y."."""
    if items[k].value in ("or", "nor") or k + 1 == len(items):
        return False
    kind = "comma" if items[k].kind == "join" and k and items[k - 1].kind == "comma" else items[k].kind  # ", and"
    if items[k + 1].kind not in NEW_STATEMENT.get(kind, ()):
        return False
    return not any(i.kind == "join" and i.value in ("or", "nor") for i in items[k + 1 : k + CUE_AHEAD])


def _named(items: Sequence[Item], scope: str, k: int) -> Reading | None:
    status = STATUS.get(_strongest(scope, _after(items, k)))
    kind = items[k].kind
    if status is None or (status == ABSENT and kind == "implies"):
        return None
    return Reading(items[k].value, UNCERTAIN if status == PRESENT and kind != "says" else status, k, k)


def _after(items: Sequence[Item], k: int) -> str:
    """The strongest cue that looks back on item k."""
    strongest, same_breath = "plain", True
    for j, item in enumerate(items[k + 1 : k + CUE_AHEAD], k + 1):
        away = item.first - items[k].last
        if item.kind in ("stop", "anew") or away > CUE_AHEAD:
            break
        if item.kind == "colon" and len(items) == j + 2 and items[j + 1].kind == "before":  # "pneumothorax: no"
            strongest = _strongest(items[j + 1].value, strongest)
        if item.kind == "comma":
            same_breath = False
        if item.kind == "after" and (item.value != "doubtful" or (same_breath and away <= DOUBT_AHEAD)):
            strongest = _strongest(item.value, strongest)
    return strongest


def _organ(items: Sequence[Item], in_force: Sequence[str], k: int) -> Reading | None:
    """An organ counts when its size is spoken of: the first adjective after it, or else the one just before it."""
    for j in range(k + 1, len(items)):
        if items[j].kind == "stop" or items[j].first - items[k].last > LOOK_AHEAD:
            break
        if items[j].kind == "shape":
            return Reading(items[k].value, size_status(items, in_force, j), k, j)
    for j in range(k - 1, -1, -1):
        if items[j].kind in ("stop", "comma") or items[k].first - items[j].last > LOOK_BACK:
            break
        if items[j].kind == "shape":
            return Reading(items[k].value, size_status(items, in_force, j), j, k)
    return None


def size_status(items: Sequence[Item], in_force: Sequence[str], adjective: int) -> int:
    """Normal is absent; enlarged is as sure as the cues since the last finding: "no edema, and the heart is large"."""
    if items[adjective].value == "normal":
        return ABSENT
    for item in reversed(items[max(0, adjective - CUE_AHEAD) : adjective]):
        if item.kind in ("says", "hints", "implies"):
            return PRESENT
        if item.kind in ("before", "stop"):
            break
    return STATUS.get(in_force[adjective], UNCERTAIN)
