"""`finding_consistency`: does an impression follow from the findings section it was written from?

Both texts become weighed states (weighted.py). A state of the impression is supported as far as its best counterpart in the
findings goes: kinship of the two words, divided by 1 + the costs of what it says otherwise (side, place, size, change). An
urgent finding that the impression does not name is left out. With s the weight supported, u not supported, o left out and
p the weight of the rest of the chest, on which the two agree,

    score = 2·(s + p) / (2·(s + p) + u + o)

A summary may leave out detail and what is not urgent: neither costs anything. The form, and what counts as urgent, are our
choices, fitted to no ratings. The reference impression is not read, so it can be scored too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chexalign.errors import Abstain, RecipeError
from chexalign.judges.columns import library_form
from chexalign.judges.contract import Judgement, Studies, TextJudge, same_length
from chexalign.judges.findings.statements import version
from chexalign.judges.findings.weighted import Features, State, attribute_errors, encode, scale, speaks_for
from chexalign.labels.readability import ENGLISH

UNSAID = ("side not said", "size or severity not said", "doubt")  # a summary may leave these out
URGENT = 0.75  # our choice: of the weight of the urgent class; a small or uncertain urgent finding falls below it


def compare(impression: Features, findings: Features) -> tuple[float, dict[str, Any]]:
    """The score and what it is made of: supported, not supported, left out."""
    if not findings.speaks and not findings.states:
        raise Abstain("the findings say nothing about a chest that the rules can read")
    if not impression.speaks:
        return 0.0, {"note": "the impression says nothing about a chest that the rules can read"}
    weights, cost, kinship = scale().weights, scale().cost, scale().kinship
    supported = unsupported = omitted = 0.0
    rows: dict[str, list[dict[str, Any]]] = {"unsupported": [], "left_out": []}
    for state in impression.states:
        credit = max((_support(state, f, findings.states, kinship, cost) for f in findings.states), default=0.0)
        supported, unsupported = supported + state.weight * credit, unsupported + state.weight * (1 - credit)
        if credit < 1:
            rows["unsupported"].append({**_row(state), "support": credit, "denied": state.name in findings.denied})
    for state in findings.states:
        if state.weight < URGENT * weights["urgent"]:
            continue
        named = max((kinship.get((i.name, state.name), 0.0) for i in impression.states), default=0.0)
        omitted += state.weight * (1 - named)
        if named < 1:
            rows["left_out"].append({**_row(state), "named": named, "denied": state.name in impression.denied})
    agreed = supported + weights["rest_of_chest"]
    found = {"supported": supported, "unsupported": unsupported, "left_out": omitted}
    return 2 * agreed / (2 * agreed + unsupported + omitted), {"weights": found, **rows}


def _support(
    state: State,
    finding: State,
    findings: Sequence[State],
    kinship: dict[tuple[str, str], float],
    cost: dict[str, float],
) -> float:
    kin = kinship.get((state.name, finding.name), 0.0)
    if not kin or not speaks_for(state, finding, findings):
        return 0.0
    return kin / (1 + sum(cost[e] for e in attribute_errors(state, finding) if e not in UNSAID))


def _row(state: State) -> dict[str, Any]:
    return {"finding": state.name, "side": state.side, "weight": state.weight}


class FindingConsistency:
    """The text judge on (impression, findings section); an empty impression gets 0."""

    name = "finding_consistency"

    def __init__(self) -> None:
        self._judge = TextJudge(self.name, f"1 rules {version()}", encode, compare, reads=ENGLISH)
        self.version = self._judge.version

    @library_form
    def score(self, reports: Sequence[str], references: Sequence[str], studies: Studies = None) -> list[Judgement]:
        """`references` are not read. Raises RecipeError without the studies, which bring the findings."""
        same_length(reports, references)
        if studies is None:
            raise RecipeError(
                f"{self.name} reads the studies' findings: use it in a recipe's score or evaluate section"
            )
        return self._judge.score(reports, [s.findings for s in studies])


def finding_consistency() -> FindingConsistency:
    """0 to 1. Needs the studies' findings sections: the reference impression is not read."""
    return FindingConsistency()
