"""Do report and reference speak of the same findings? Two judges on the rule labels of `labels/`.

`chexpert_rule_f1`: F1 = 2·|A∩B| / (|A|+|B|) over the sets of positive findings among the 13; 1 when both are empty. No
Finding is left out, so that a fixed normal text earns nothing on abnormal studies. Per report, CheXbert-like tools
return accuracy under this name: this is F1.

`finding_f1`: a set of units (finding, side) instead, with zone and extent; F1 = 2·C / (n_report + n_reference), where a
matched unit adds to C the mean of its agreement on the finding itself and on each attribute the *reference* states.
Inspired by RadGraph F1, and not RadGraph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

from chexalign.judges.contract import Judge, TextJudge
from chexalign.judges.findings.label_sets import compare_sets, positive_findings
from chexalign.judges.findings.scrutiny import Scrutiny, after_comparing, before_comparing, charged, scrutinize
from chexalign.judges.findings.statements import version
from chexalign.labels import FINDINGS, Mention, find_mentions
from chexalign.labels.measures import same_size
from chexalign.labels.readability import ENGLISH

UNCERTAIN_CREDIT = 0.5  # our choice: what "possible X" earns against "X" in finding_f1, and the other way round
SAME_ZONE = {
    "apical": "upper",
    "basal": "lower",
    "retrocardiac": "lower",
}  # our choice: near synonyms
LEVELS = {"small": 1, "mild": 1, "moderate": 2, "large": 3, "severe": 3}  # our choice: size and severity are one scale


@dataclass(frozen=True)
class Unit:
    """One finding on one side, as a whole report describes it."""

    label: str
    side: str | None  # left, right, None when not said
    certain: bool
    zones: frozenset[str]
    level: int | None
    size_mm: float | None = None
    count: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For a judgement's details: zones sorted, so that equal units give equal text; size and count are left out."""
        row = {"label": self.label, "side": self.side, "certain": self.certain, "level": self.level}
        return {**row, "zones": sorted(self.zones)}


def units(text: str) -> tuple[Unit, ...]:
    """The present and uncertain findings of a report, merged per (finding, side).

    Bilateral is left and right. What is said without a side is about the sides named elsewhere, if any: "Effusions. …
    Small left effusion." is one unit.
    """
    said: dict[str, dict[str | None, list[Mention]]] = {}
    for m in find_mentions(text):
        if m.status:
            for side in ("left", "right") if m.side == "bilateral" else (m.side,):
                said.setdefault(m.label, {}).setdefault(side, []).append(m)
    found = []
    for label in (label for label in FINDINGS if label in said):
        anywhere = said[label].pop(None, []) if len(said[label]) > 1 else []
        found += [_merge(label, s, said[label][s] + anywhere) for s in ("left", "right", None) if s in said[label]]
    return tuple(found)


def _merge(label: str, side: str | None, mentions: list[Mention]) -> Unit:
    """Order never matters: certain if any mention is, all zones, the highest level."""
    zones = {SAME_ZONE.get(m.zone, m.zone) for m in mentions if m.zone}
    levels = [LEVELS[word] for m in mentions for word in (m.size, m.severity) if word]
    size = max((m.size_mm for m in mentions if m.size_mm is not None), default=None)
    count = next((m.count for m in mentions if m.count), None)
    certain = any(m.status == 1 for m in mentions)
    return Unit(label, side, certain, frozenset(zones), max(levels, default=None), size, count)


def credit(report: Unit, reference: Unit) -> float:
    """The mean of the agreement on the finding and on each attribute that the reference states."""
    parts = [1.0 if report.certain == reference.certain else UNCERTAIN_CREDIT]
    if reference.side:
        parts.append(float(report.side == reference.side))
    if reference.zones:
        parts.append(len(report.zones & reference.zones) / len(report.zones | reference.zones))
    if reference.level:
        parts.append(float(report.level == reference.level))
    if reference.size_mm is not None and report.size_mm is not None:
        parts.append(float(same_size(report.size_mm, reference.size_mm)))
    if reference.count and report.count:
        parts.append(float(report.count == reference.count))
    return sum(parts) / len(parts)


def compare_units(
    report: tuple[Unit, ...], reference: tuple[Unit, ...], contradicted: frozenset[str] = frozenset()
) -> tuple[float, dict[str, Any]]:
    """F1 = 2·C / (n_report + n_reference), 1 when both are empty. Units of one finding are paired in the best way.

    A finding that the report states and denies is one unit more of the report, which nothing matches.
    """
    total, n_report, matches = 0.0, len(contradicted), []
    for label in FINDINGS:
        theirs = [u for u in reference if u.label == label]
        ours = _as_many(tuple(u for u in report if u.label == label), theirs)
        n_report += len(ours)
        if not ours or not theirs:
            continue
        pairing = max(_pairings(ours, theirs), key=lambda pairs: sum(credit(a, b) for a, b in pairs))
        for a, b in pairing:
            total += credit(a, b)
            matches.append({"label": label, "report_side": a.side, "side": b.side, "credit": credit(a, b)})
    score = 2 * total / (n_report + len(reference)) if n_report + len(reference) else 1.0
    sides = {"report": [u.to_dict() for u in report], "reference": [u.to_dict() for u in reference]}
    return score, {"matches": matches, **sides}


def _as_many(report: tuple[Unit, ...], reference: list[Unit]) -> tuple[Unit, ...]:
    """The reference says how many units a finding has: where it names no side, two sides are one unit; where it names
    both, a unit without a side stands for two (its side still earns nothing). # our choice"""
    if len(reference) == 1 and reference[0].side is None and len(report) == 2:
        levels = [u.level for u in report if u.level]
        zones = report[0].zones | report[1].zones
        return (Unit(report[0].label, None, any(u.certain for u in report), zones, max(levels, default=None)),)
    if len(reference) == 2 and len(report) == 1 and report[0].side is None:
        return report * 2
    return report


def _pairings(ours: tuple[Unit, ...], theirs: list[Unit]) -> list[list[tuple[Unit, Unit]]]:
    if len(ours) <= len(theirs):
        return [list(zip(ours, chosen, strict=True)) for chosen in permutations(theirs, len(ours))]
    return [list(zip(chosen, theirs, strict=True)) for chosen in permutations(ours, len(theirs))]


@dataclass(frozen=True, slots=True)
class Scrutinized:
    """A text's features, and what it owes an explanation for."""

    features: Any
    scrutiny: Scrutiny


def _judge(name: str, version: str, encode: Callable[[str], Any], compare: Callable[..., Any]) -> TextJudge:
    """The judge of two pure functions, which charges for what is unread or contradicted (scrutiny.py)."""

    def read(text: str) -> Scrutinized:
        return Scrutinized(encode(text), scrutinize(text))

    def compared(report: Scrutinized, reference: Scrutinized) -> tuple[float, dict[str, Any]]:
        ours, theirs = report.scrutiny, reference.scrutiny
        if (said := before_comparing(ours, theirs)) is not None:
            return said
        score, details = compare(report.features, reference.features, charged(ours, theirs)[1])
        return after_comparing(score, details, ours, theirs)

    return TextJudge(name, version, read, compared, reads=ENGLISH)


def chexpert_rule_f1(*, truth: Literal["report", "labels"] = "report") -> Judge:
    """`truth: labels` compares with the labels of the study's source, in place of those of its report."""
    if truth == "labels":
        from chexalign.judges.findings.truth import LabelF1

        return LabelF1()
    return _judge("chexpert_rule_f1", f"2 uncertain=1 rules {version()}", positive_findings, compare_sets)


def finding_f1() -> TextJudge:
    """0 to 1; the formula stands at the top of this file. Reads English alone and abstains on other languages."""
    return _judge("finding_f1", f"2 rules {version()}", units, compare_units)
