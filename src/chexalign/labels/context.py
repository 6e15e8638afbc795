"""What one sentence says about each finding: present, absent or uncertain.

ConText's idea (Harkema et al., J Biomed Inform 2009) in one pass: a cue such as "no" sets the scope for the findings
after it, up to the next `stop`; a cue such as "is not seen" looks back. Among competing cues "cannot be excluded" beats
denial, and denial beats doubt. The words are in cues.toml.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from chexalign.labels.phrases import Item

PRESENT = 1
ABSENT = 0
UNCERTAIN = -1
RANK = {"plain": 0, "doubtful": 1, "preferred": 1, "absent": 2, "not_excluded": 3, "kept": 4, "then": 5, "elsewhere": 5}
STATUS = {  # elsewhere, and then (up to the next comma): no mention
    "plain": PRESENT,
    "doubtful": UNCERTAIN,
    "preferred": UNCERTAIN,  # "favor X over Y": Y is denied
    "absent": ABSENT,
    "not_excluded": UNCERTAIN,
    "kept": PRESENT,  # "no evidence that X has resolved"
}
NEW_STATEMENT = {  # what has to follow a comma or an "and" for a denial to end there
    "comma": ("size", "severity", "side", "zone", "anew", "article"),
    "join": ("anew", "article"),
}
# Reach in words, `# our choice` all: long enough for real sentences, short enough that a text without stops stays fast.
LOOK_BACK = 3  # from an organ to the adjective before it
LOOK_AHEAD = 9  # from an organ to the adjective after it
DOUBT_AHEAD = 5  # from a finding to a doubt after it
# "atelectasis versus pneumonia" casts doubt on the atelectasis, "atelectasis versus scar" names one shadow twice # our choice
ALTERNATIVES = frozenset({"pneumonia", "edema", "consolidation", "lung lesion", "mass", "nodule", "pneumothorax"})
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
        elif item.kind == "denies":
            reading = Reading(item.value, ABSENT, k, k)
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
        elif item.kind == "comma" and scope == "then":
            scope = "plain"
        elif item.kind == "over" and scope == "preferred":
            scope = "absent"
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
    status = STATUS.get("kept" if scope == "kept" else _strongest(scope, _after(items, k)))
    kind, after = items[k].kind, next((i for i in items[k + 1 : k + 3] if i.first >= items[k].last), None)
    if status == ABSENT and after is not None and after.kind == "of_change" and after.first == items[k].last:
        status = PRESENT  # "no further pneumothorax enlargement"
    if status is None or (status == ABSENT and kind == "implies"):
        return None
    return Reading(items[k].value, UNCERTAIN if status == PRESENT and kind != "says" else status, k, k)


def _after(items: Sequence[Item], k: int) -> str:
    """The strongest cue that looks back on item k."""
    strongest, same_breath = "plain", True
    for j, item in enumerate(items[k + 1 : k + CUE_AHEAD], k + 1):
        away = item.first - items[k].last
        if away > CUE_AHEAD:
            break
        if item.kind in ("stop", "anew"):
            return _strongest(_of_a_process(items, j), strongest)
        if item.kind == "last" and j == len(items) - 1:
            strongest = _strongest(item.value, strongest)
        if item.kind == "colon" and len(items) == j + 2 and items[j + 1].kind == "before":  # "pneumothorax: no"
            strongest = _strongest(items[j + 1].value, strongest)
        if item.kind == "comma":
            same_breath = False
        if item.kind == "versus" and away <= DOUBT_AHEAD and _other(items, j):
            strongest = _strongest("doubtful", strongest)
        if item.kind == "after" and (item.value != "doubtful" or (same_breath and away <= DOUBT_AHEAD)):
            strongest = _strongest(item.value, strongest)
    return strongest


def _other(items: Sequence[Item], versus: int) -> bool:
    """Whether what follows a "versus" is a disease of its own."""
    named = next((i for i in items[versus + 1 :] if i.kind in ("says", "hints")), None)
    return named is not None and named.value.lower() in ALTERNATIVES


def _of_a_process(items: Sequence[Item], stop: int) -> str:
    """What is said after a stop of a process that has no name: "no pneumonia, although it is difficult to rule out"."""
    for item in items[stop + 1 : stop + 1 + CUE_AHEAD]:
        if item.kind in ("says", "hints", "implies", "stop", "anatomy"):
            break
        if item.kind == "after" and item.value == "not_excluded":
            return "not_excluded"
    return "plain"


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
