"""One noun for two places: "small left and large right effusion" is two effusions, each with its own words.

The noun is said again, as an item at the same place of the text, behind the first description; all that follows then reads
"small left effusion and large right effusion".
"""

from __future__ import annotations

from collections.abc import Sequence

from chexalign.labels.phrases import Item

DESCRIBES = frozenset({"side", "zone", "size", "severity", "change"})
SKIPPED = DESCRIBES | {"join", "shape", "quality", "body", "organ"}  # may stand between a description and its noun
NOUNS = frozenset({"says", "hints"})
JOINS = frozenset({"join", "comma"})
NEAR = 3  # words between a description and its noun # our choice


def say_again(items: list[Item]) -> list[Item]:
    """The items with each shared noun behind both of its descriptions."""
    if sum(item.kind == "side" for item in items) < 2:
        return items
    out = list(items)
    for k in range(len(out) - 1, 0, -1):
        if out[k].kind in JOINS and (noun := _noun_after(out, k)) and _described_before(out, k, out[k + 1 : noun[0]]):
            first, last = noun
            side = next(n for n in range(k - 1, -1, -1) if out[n].kind == "side")
            zones = [i for i in out[k + 1 : first] if i.kind == "zone"]
            lent = [] if any(i.kind == "zone" for i in out[side + 1 : k]) else zones
            again = [i._replace(first=out[k].first, last=out[k].first) for i in (*lent, *out[first:last])]
            out[k:k] = again
    return out


def _noun_after(items: Sequence[Item], k: int) -> tuple[int, int] | None:
    """Where the noun stands whose description follows the join k, if that description names a side."""
    at = k + 1
    while at < len(items) and items[at].kind in SKIPPED:
        at += 1
    if at == len(items) or items[at].kind not in NOUNS or items[at].first - items[at - 1].last > NEAR:
        return None
    if not any(i.kind == "side" for i in items[k + 1 : at]):
        return None
    end = at
    while end < len(items) and items[end].kind in NOUNS and items[end].first == items[at].first:
        end += 1
    return at, end


def _described_before(items: Sequence[Item], k: int, after: Sequence[Item]) -> bool:
    """A description with another side stands right before the join, and belongs to no noun or place before it."""
    at = k - 1
    if items[at].kind == "comma":
        at -= 1
    start = at
    while start >= 0 and items[start].kind in (*DESCRIBES, "shape", "quality"):
        start -= 1
    sides = {i.value for i in items[start + 1 : at + 1] if i.kind == "side"}
    if (
        len(sides) != 1
        or sides & {i.value for i in after if i.kind == "side"}
        or items[k].first - items[at].last > NEAR
    ):
        return False
    while start >= 0 and items[start].kind == "article":
        start -= 1
    return start < 0 or items[start].kind not in (*NOUNS, "at", "anatomy", "organ")
