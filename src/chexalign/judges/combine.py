"""Judges made from judges: length control, weighted sums, the worst of several, gates, schedules, ranks in a group.

Every combination keeps each part's answer in `details["parts"]`, abstains when a part it needs abstains, and has its
parts' versions in its own. Written as one line in a recipe; line.py reads it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chexalign.errors import RecipeError
from chexalign.judges.columns import raw_form
from chexalign.judges.contract import Judge, Judgement, Studies, context_of, reward
from chexalign.judges.registry import LC
from chexalign.judges.request import RewardRequest


@dataclass(frozen=True)
class Combined:
    """A judge made of `parts` by `rule`. `needs` is what the rule itself looks at: "group", "step" or neither."""

    name: str
    kind: str  # the rule and its version
    parts: tuple[Judge, ...]
    rule: Callable[[tuple[Judge, ...], RewardRequest], list[Judgement]]
    needs: frozenset[str] = frozenset()

    @property
    def version(self) -> str:
        """The rule and every part with its version, so that a new version of a part makes a new judge."""
        return ", ".join(
            [self.kind, *(p.version if len(self.parts) == 1 else f"{p.name} ({p.version})" for p in self.parts)]
        )

    @property
    def context(self) -> frozenset[str]:
        """What the rule or any part looks at: a subset of {"group", "step"}."""
        return self.needs.union(*map(context_of, self.parts))

    @raw_form
    def score(self, reports: Sequence[str], references: Sequence[str], studies: Studies = None) -> list[Judgement]:
        """As `reward` without groups and step: raises RecipeError where the rule needs one."""
        return reward(self, RewardRequest(reports, references, studies))

    def reward(self, request: RewardRequest) -> list[Judgement]:
        """One judgement per report, in order. Raises RecipeError where the rule needs groups or a step and none is given."""
        for what, given in (("group", request.group_ids), ("step", request.step)):
            if what in self.needs and given is None:
                raise RecipeError(
                    f"{self.name} looks at the {what} of a reward: use it in online training, not as a score"
                )
        return self.rule(self.parts, request)


def length_controlled(judge: Judge) -> Combined:
    """score / max(words(report) / words(reference), 1): longer than the reference costs, shorter does not.

    The length control that CheXalign (ACL 2025) gives GREEN, for any judge. Words are what white space separates; a
    reference of no words has ratio 1, and a negative score is multiplied, so that length never helps. # our choices
    """

    def rule(parts: tuple[Judge, ...], request: RewardRequest) -> list[Judgement]:
        rows = zip(reward(parts[0], request), request.reports, request.references, strict=True)
        return [_shorten(answer, length_ratio(report, reference)) for answer, report, reference in rows]

    name = f"lc({judge.name})" if set(judge.name) & set(" (*") else LC + judge.name
    return Combined(name, "lc 1", (judge,), rule)


def length_ratio(report: str, reference: str) -> float:
    """max(words(report) / words(reference), 1), and 1 for a reference of no words."""
    words = len(reference.split())
    return max(len(report.split()) / words, 1.0) if words else 1.0


def _shorten(answer: Judgement, ratio: float) -> Judgement:
    if answer.score is None:
        return answer
    score = answer.score / ratio if answer.score > 0 else answer.score * ratio
    return Judgement(score, details={**answer.details, "raw_score": answer.score, "length_ratio": ratio})


def _together(names: Sequence[str], answers: Sequence[Judgement], of: Callable[[list[float]], float]) -> Judgement:
    """One answer from several: `of` their scores, or the first abstention."""
    for name, answer in zip(names, answers, strict=True):
        if answer.score is None:
            return Judgement(None, f"{name}: {answer.error}", _parts(names, answers))
    return Judgement(of([a.score for a in answers if a.score is not None]), details=_parts(names, answers))


def _parts(names: Sequence[str], answers: Sequence[Judgement]) -> dict[str, Any]:
    return {
        "parts": {
            n: {"score": a.score, **({"error": a.error} if a.error else {}), "details": a.details}
            for n, a in zip(names, answers, strict=True)
        }
    }


def _rowwise(of: Callable[[list[float]], float]) -> Callable[[tuple[Judge, ...], RewardRequest], list[Judgement]]:
    def rule(parts: tuple[Judge, ...], request: RewardRequest) -> list[Judgement]:
        names = [p.name for p in parts]
        return [_together(names, row, of) for row in zip(*(reward(p, request) for p in parts), strict=True)]

    return rule


def weighted_sum(terms: Sequence[tuple[float, Judge]]) -> Combined:
    """Σ wᵢ · scoreᵢ."""
    weights, parts = [w for w, _ in terms], tuple(j for _, j in terms)
    name = " + ".join(j.name if w == 1 else f"{w:g}*{_bracketed(j)}" for w, j in terms).replace("+ -", "- ")
    rule = _rowwise(lambda scores: sum(w * s for w, s in zip(weights, scores, strict=True)))
    return Combined(name, f"sum 1 {' '.join(f'{w!r}' for w in weights)}", parts, rule)


def _bracketed(judge: Judge) -> str:
    return f"({judge.name})" if " " in judge.name and not judge.name.endswith(")") else judge.name


def minimum(*parts: Judge) -> Combined:
    """The lowest of the scores: a report must please every part."""
    return Combined(f"min({', '.join(p.name for p in parts)})", "min 1", parts, _rowwise(min))


def gate(condition: Judge, judge: Judge) -> Combined:
    """`judge` where the condition has full marks (1), else 0 without asking. # our choice: 0

    A condition that finds the report inside its text (`details["body"]`, the judge `format`) hands that on.
    """

    def rule(parts: tuple[Judge, ...], request: RewardRequest) -> list[Judgement]:
        first, second = parts
        conditions = reward(first, request)
        passed = [i for i, a in enumerate(conditions) if a.score is not None and a.score >= 1]
        rows = request.rows(passed)
        rows = replace(rows, reports=[conditions[i].details.get("body", request.reports[i]) for i in passed])
        answers = dict(zip(passed, reward(second, rows) if passed else [], strict=True))
        names = [first.name, second.name]
        out = []
        for i, condition in enumerate(conditions):
            if i in answers:
                out.append(_together(names, [condition, answers[i]], lambda scores: scores[1]))
            else:
                out.append(_together(names[:1], [condition], lambda scores: 0.0))
        return out

    return Combined(f"gate({condition.name}, {judge.name})", "gate 1", (condition, judge), rule)


def every(k: int, judge: Judge) -> Combined:
    """`judge` at every k-th training step, the k-th first, else 0 without asking.

    VALOR's clinical rewards, whose algorithm 1 counts updates from 1; `step` counts from 0, so that step k - 1 is asked.
    """

    def rule(parts: tuple[Judge, ...], request: RewardRequest) -> list[Judgement]:
        assert request.step is not None
        if (request.step + 1) % k:
            return [Judgement(0.0, details={"note": f"not asked at step {request.step}"}) for _ in request.reports]
        return reward(parts[0], request)

    return Combined(f"every({k}, {judge.name})", f"every 1 {k}", (judge,), rule, frozenset({"step"}))


def rank(judge: Judge) -> Combined:
    """1 - (rank - 1) / (z - 1) among the z scored reports of a group, rank 1 the best (VALOR's visual reward).

    Ties share their mean rank; a group of one gets 1. # our choices
    """

    def rule(parts: tuple[Judge, ...], request: RewardRequest) -> list[Judgement]:
        assert request.group_ids is not None
        answers = reward(parts[0], request)
        groups: dict[str, list[float]] = defaultdict(list)
        for group, answer in zip(request.group_ids, answers, strict=True):
            if answer.score is not None:
                groups[group].append(answer.score)
        return [
            answer
            if answer.score is None
            else Judgement(_place(answer.score, groups[group]), details={**answer.details, "raw_score": answer.score})
            for group, answer in zip(request.group_ids, answers, strict=True)
        ]

    return Combined(f"rank({judge.name})", "rank 1", (judge,), rule, frozenset({"group"}))


def _place(score: float, group: Sequence[float]) -> float:
    better, equal = sum(s > score for s in group), sum(s == score for s in group)
    return 1 - (better + (equal - 1) / 2) / (len(group) - 1) if len(group) > 1 else 1.0
