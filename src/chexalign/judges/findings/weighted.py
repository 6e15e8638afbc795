"""`finding_f1_weighted`: F1 of weighed findings, with partial credit for what is nearly right.

Each report becomes a set of states, one per finding and side, over some fifty findings (concepts.toml); each state has a
weight: how much an error about it matters (significance.toml). With c the weight found, m missed, i invented and p the
weight of the rest of the chest, on which the two agree,

    score = 2·(c + p) / (2·(c + p) + m + i)

A reference state is found as far as its best counterpart goes: kinship of the two words, divided by 1 + its attribute
errors; the remainder is missed. A report state is invented as far as nothing in the reference is akin to it, so one
error in an attribute is counted once. p keeps the score graded where a side is normal: inventing an urgent finding on a
normal chest costs more than a benign one. Made by clinical reasoning after CRIMSON (its released weights); no number
was optimised on ratings, but its form was chosen with RadPref's in sight (docs/evidence/judges.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from chexalign.errors import Abstain
from chexalign.judges.contract import TextJudge
from chexalign.judges.findings.scrutiny import NO_CHEST, contradictions
from chexalign.judges.findings.statements import ConceptMention, read_text, table, version, vocabulary
from chexalign.labels.context import ABSENT, PRESENT
from chexalign.labels.measures import same_size
from chexalign.labels.readability import ENGLISH

LEVELS = {"small": 1, "mild": 1, "moderate": 2, "large": 3, "severe": 3}  # our choice: size and severity are one scale
SAME_ZONE = {"apical": "upper", "basal": "lower", "retrocardiac": "lower"}  # our choice: near synonyms


@dataclass(frozen=True, slots=True)
class State:
    """One finding on one side, as a whole report describes it, and what an error about it weighs."""

    name: str
    side: str | None  # left, right, None when not said
    certain: bool
    zones: frozenset[str]
    level: int | None
    change: str | None  # better, worse, same
    size_mm: float | None
    count: str | None
    spans: tuple[tuple[int, int], ...]
    weight: float = 0.0


class Features(NamedTuple):
    """All that the score looks at in one text, so that each text is read once whatever it is compared with."""

    states: tuple[State, ...]
    denied: frozenset[str]
    speaks: bool  # whether the text speaks of a chest at all
    unread: tuple[str, ...] = ()  # sentences that the rules cannot read
    contradicted: frozenset[str] = frozenset()  # names that are stated and denied


class Scale(NamedTuple):
    """significance.toml: weight by class, factor and cost by attribute, kinship (0 to 1) of two findings' names."""

    weights: dict[str, float]
    factor: dict[str, float]
    cost: dict[str, float]
    kinship: dict[tuple[str, str], float]


@cache
def scale() -> Scale:
    """significance.toml; kinship is symmetric and 1 for a finding with itself."""
    rows = table("significance.toml")
    kinship = {(name, name): 1.0 for name in vocabulary().classes}
    for a, others in rows["similar"].items():
        for b, value in others.items():
            kinship[a, b] = kinship[b, a] = value
    return Scale(rows["weights"], rows["factor"], rows["attribute_error"], kinship)


def encode(text: str) -> Features:
    """The present and uncertain findings, merged per finding and side; the order of sentences never matters.

    Bilateral is left and right. What is said without a side is about the sides named elsewhere, if any.
    """
    mentions, speaks, unread = read_text(text)
    contradicted = contradictions(text, ((m.name, m.modifiers.get("side"), m) for m in mentions))
    said: dict[str, dict[str | None, list[ConceptMention]]] = {}
    for m in mentions:
        if m.status != ABSENT:
            side = m.modifiers.get("side")
            for one in ("left", "right") if side == "bilateral" else (side,):
                said.setdefault(m.name, {}).setdefault(one, []).append(m)
    states = []
    for name in sorted(said):
        anywhere = said[name].pop(None, []) if len(said[name]) > 1 else []
        sides = [s for s in ("left", "right", None) if s in said[name]]
        states += [_merge(name, s, said[name][s] + anywhere, len(sides)) for s in sides]
    return Features(tuple(states), frozenset(m.name for m in mentions) - frozenset(said), speaks, unread, contradicted)


def _merge(name: str, side: str | None, said: Sequence[ConceptMention], n_sides: int) -> State:
    """Order never matters: certain if any mention is, all zones, the highest level, a change only if undisputed."""
    levels = [LEVELS[word] for m in said for kind in ("size", "severity") if (word := m.modifiers.get(kind))]
    changes = {c for m in said if (c := m.modifiers.get("change"))}
    level, certain = max(levels, default=None), any(m.status == PRESENT for m in said)
    return State(
        name,
        side,
        certain,
        zones=frozenset(SAME_ZONE.get(z, z) for m in said if (z := m.modifiers.get("zone"))),
        level=level,
        change=changes.pop() if len(changes) == 1 else None,
        size_mm=max((m.size_mm for m in said if m.size_mm is not None), default=None),
        count=next((c for m in said if (c := m.modifiers.get("count"))), None),
        spans=tuple(sorted({(m.start, m.end) for m in said})),
        weight=_weight(name, level, certain, n_sides),
    )


def _weight(name: str, level: int | None, certain: bool, n_sides: int) -> float:
    weights, factor, _, _ = scale()
    weight = weights[vocabulary().classes[name]] * (factor[f"level_{level}"] if level else 1.0)
    weight = min(weight, weights["urgent"]) * (1.0 if certain else factor["uncertain"])
    return weight * (factor["two_sides"] if n_sides > 1 else 1.0)


def attribute_errors(report: State, reference: State) -> list[str]:
    """What the report says wrongly, or leaves out, of what the reference says about this finding."""
    found = []
    if reference.side and report.side != reference.side:
        found.append("wrong side" if report.side else "side not said")
    if reference.zones and report.zones and not reference.zones & report.zones:
        found.append("wrong place")
    if reference.level and report.level != reference.level:
        off = (
            {1: "off by one", 2: "off by two"}.get(abs(report.level - reference.level)) if report.level else "not said"
        )
        found.append(f"size or severity {off}")
    if report.certain != reference.certain:
        found.append("doubt")
    if report.change and reference.change and report.change != reference.change:
        found.append("wrong change")
    sizes = [s for s in (report.size_mm, reference.size_mm) if s is not None]
    if len(sizes) == 2 and not same_size(*sizes):
        found.append("wrong measure")
    if report.count and reference.count and report.count != reference.count:
        found.append("wrong number")
    return found


def speaks_for(one: State, other: State, others: Sequence[State]) -> bool:
    """A state stands for one of the other side only where the other report has none of its own side."""
    if one.name != other.name or not one.side or not other.side or one.side == other.side:
        return True
    return not any(o.name == one.name and o.side == one.side for o in others)


def compare(report: Features, reference: Features) -> tuple[float, dict[str, Any]]:
    """The score, and what it is made of: matches with their credit and errors, what was missed, what was invented."""
    if not reference.speaks:
        raise Abstain(f"the reference {NO_CHEST}")
    if not report.speaks:
        return 0.0, {"note": f"the report {NO_CHEST}", "unread": len(report.unread)}
    weights, _, cost, kinship = scale()
    contradicted = report.contradicted - reference.contradicted
    found = missed = invented = 0.0
    rows: dict[str, list[dict[str, Any]]] = {"matches": [], "missed": [], "invented": []}
    for theirs in reference.states:
        best, credit = None, 0.0
        for ours in report.states:
            kin = kinship.get((ours.name, theirs.name), 0.0)
            if kin and speaks_for(ours, theirs, reference.states):
                earned = kin / (1 + sum(cost[error] for error in attribute_errors(ours, theirs)))
                best, credit = (ours, earned) if earned > credit else (best, credit)
        if best and best.name in contradicted:
            credit *= cost["contradicted"]
        found, missed = found + theirs.weight * credit, missed + theirs.weight * (1 - credit)
        if best:
            rows["matches"].append({**_row(theirs), **_match(best, theirs), "credit": credit})
        else:
            rows["missed"].append({**_row(theirs), "denied": theirs.name in report.denied})
    for ours in report.states:
        akin = (r for r in reference.states if speaks_for(r, ours, report.states))
        support = max((kinship.get((ours.name, r.name), 0.0) for r in akin), default=0.0)
        if ours.name in contradicted:
            support *= cost["contradicted"]
        invented += ours.weight * (1 - support)
        if support < 1:
            rows["invented"].append({**_row(ours), "support": support})
    invented += weights["unread_sentence"] * max(0, len(report.unread) - len(reference.unread))
    agreed = found + weights["rest_of_chest"]
    parts = {"found": found, "missed": missed, "invented": invented}
    told = {"unread": len(report.unread), **({"contradicted": sorted(contradicted)} if contradicted else {})}
    return 2 * agreed / (2 * agreed + missed + invented), {"weights": parts, **rows, **told}


def _row(state: State) -> dict[str, Any]:
    return {"finding": state.name, "side": state.side, "weight": state.weight, "spans": [list(s) for s in state.spans]}


def _match(report: State, reference: State) -> dict[str, Any]:
    said = {"report_finding": report.name, "report_side": report.side, "report_spans": [list(s) for s in report.spans]}
    return {**said, "errors": attribute_errors(report, reference)}


def marks(details: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(report's, reference's) spans for report/run/highlight.py: right, wrong (invented or an attribute), missing."""
    report, reference = [], []
    for row in details.get("matches", ()):
        kind = "wrong" if row["errors"] or row["report_finding"] != row["finding"] else "right"
        label = ", ".join([row["report_finding"], *row["errors"]])
        report += _spans(row["report_spans"], kind, label)
        reference += _spans(row["spans"], "right", row["finding"])
    for row in details.get("invented", ()):
        report += _spans(row["spans"], "wrong", row["finding"]) if not row["support"] else []
    for row in details.get("missed", ()):
        reference += _spans(row["spans"], "missing", row["finding"])
    return report, reference


def _spans(spans: Iterable[Sequence[int]], kind: str, label: str) -> list[dict[str, Any]]:
    return [{"start": start, "end": end, "kind": kind, "label": label} for start, end in spans]


def finding_f1_weighted() -> TextJudge:
    """0 to 1; the formula stands at the top of this file. Reads English alone and abstains on other languages."""
    return TextJudge("finding_f1_weighted", f"2 rules {version()}", encode, compare, reads=ENGLISH)
