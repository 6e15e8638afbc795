"""A cascade: a cheap judge ranks the reports of a group, a costly one is asked only where it can change the best or the worst.

    cascade(finding_f1_weighted, green)          cascade(finding_f1_weighted, lc_green, 0.2)

Of each group the costly judge first sees the reports that the cheap judge finds best and worst. Then it sees those whose cheap
score is within `margin` of either end, unless that end has been settled: a score of 1 cannot be beaten, a score of 0 not be
undercut. The others abstain ("not asked"); pairs are made of the asked ones. In a fixed share of the groups all reports are
asked, and what the cascade would have chosen there is compared with what the costly judge chooses: `summary` says how often
both agree, and how many calls were saved. # margin, share: our choices
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chexalign.errors import RecipeError
from chexalign.judges.columns import raw_form
from chexalign.judges.contract import Judge, Judgement, Studies, reward
from chexalign.judges.request import RewardRequest

MARGIN = 0.1  # of the cheap judge's score # our choice
AUDITED = 8  # one group in so many is asked in full # our choice
HIGHEST, LOWEST = 1.0, 0.0  # of a judge with the range 0 to 1

Scores = dict[int, float]


@dataclass
class Tally:
    """What a cascade has done so far in this process."""

    reports: int = 0
    asked: int = 0
    groups: int = 0
    audited: int = 0
    same: int = 0


@dataclass
class Cascade:
    """`bounded`: the costly judge's scores lie between 0 and 1, so that an end can be settled."""

    cheap: Judge
    costly: Judge
    margin: float = MARGIN
    bounded: bool = True
    context: frozenset[str] = frozenset({"group"})
    tally: Tally = field(default_factory=Tally, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise RecipeError(f"{self.name}: the margin is {self.margin:g}; it must not be below 0")

    @property
    def name(self) -> str:
        """The line that makes this judge; the margin stands in it where it is not the usual one."""
        last = "" if self.margin == MARGIN else f", {self.margin:g}"
        return f"cascade({self.cheap.name}, {self.costly.name}{last})"

    @property
    def version(self) -> str:
        """All that can change a score: the rule, the margin, the share that is audited, and both judges."""
        parts = ", ".join(f"{judge.name} ({judge.version})" for judge in self.parts)
        return f"cascade 1 margin {self.margin:g} audited 1/{AUDITED}, {parts}"

    @property
    def parts(self) -> tuple[Judge, Judge]:
        """The cheap judge, then the costly one."""
        return self.cheap, self.costly

    @raw_form
    def score(self, reports: Sequence[str], references: Sequence[str], studies: Studies = None) -> list[Judgement]:
        """Raises RecipeError always: alone, a report has no group whose ends could be settled."""
        raise RecipeError(
            f"{self.name} compares the reports of a group: use it for rewards or pairs, or score {self.costly.name}"
        )

    def reward(self, request: RewardRequest) -> list[Judgement]:
        """The costly judge's answers where it was asked; an abstention for each report that lies between."""
        if request.group_ids is None:
            return self.score(request.reports, request.references)
        groups: dict[str, list[int]] = defaultdict(list)
        for i, group in enumerate(request.group_ids):
            groups[group].append(i)
        ranked = [answer.score for answer in reward(self.cheap, request)]
        rounds = {group: _ends(rows, ranked) for group, rows in groups.items()}
        found = self._ask(request, sorted(i for rows in rounds.values() for i in rows))
        more = {group: self._near(rows, rounds[group], ranked, found) for group, rows in groups.items()}
        found |= self._ask(request, sorted(i for rows in more.values() for i in rows))
        self._audit(request, groups, found)
        self._count(len(request.reports), len(found), len(groups))
        return [found[i] if i in found else _passed_over(ranked[i]) for i in range(len(ranked))]

    def _ask(self, request: RewardRequest, rows: Sequence[int]) -> dict[int, Judgement]:
        return dict(zip(rows, reward(self.costly, request.rows(rows)) if rows else [], strict=True))

    def _near(
        self, rows: Sequence[int], asked: Sequence[int], ranked: Sequence[float | None], found: dict[int, Judgement]
    ) -> list[int]:
        """Unasked reports that may still be the best or the worst of their group."""
        known = [s for i in rows if (s := ranked[i]) is not None]
        scores = [s for i in asked if (s := found[i].score) is not None]
        if not known:
            return []
        top_open = not (self.bounded and scores and max(scores) >= HIGHEST)
        bottom_open = not (self.bounded and scores and min(scores) <= LOWEST)
        return [
            i
            for i in rows
            if i not in asked
            and (s := ranked[i]) is not None
            and ((top_open and s >= max(known) - self.margin) or (bottom_open and s <= min(known) + self.margin))
        ]

    def _audit(self, request: RewardRequest, groups: dict[str, list[int]], found: dict[int, Judgement]) -> None:
        """Ask the rest of every audited group, and compare the ends that the cascade chose with those of all scores."""
        audited = {group: rows for group, rows in groups.items() if _is_audited(group)}
        before = {group: _chosen(rows, found) for group, rows in audited.items()}
        found |= self._ask(request, sorted(i for rows in audited.values() for i in rows if i not in found))
        same = sum(before[group] == _chosen(rows, found) for group, rows in audited.items())
        self.tally = replace(self.tally, audited=self.tally.audited + len(audited), same=self.tally.same + same)

    def _count(self, reports: int, asked: int, groups: int) -> None:
        t = self.tally
        self.tally = replace(t, reports=t.reports + reports, asked=t.asked + asked, groups=t.groups + groups)

    def summary(self) -> str | None:
        """Calls saved and agreement with the costly judge alone, in one line; None before anything was judged."""
        t = self.tally
        if not t.reports:
            return None
        saved = f"{t.asked} of {t.reports} reports asked ({1 - t.asked / t.reports:.0%} saved)"
        if not t.audited:
            return f"{self.name}: {saved}; no group was asked in full"
        low, high = wilson(t.same, t.audited)
        agreed = f"same best and worst in {t.same} of {t.audited} groups asked in full (90% interval {low:.0%} to {high:.0%})"
        return f"{self.name}: {saved}; {agreed}"


def _ends(rows: Sequence[int], ranked: Sequence[float | None]) -> list[int]:
    """The cheap judge's best and worst of a group, the first of equals; all of them where it scored fewer than two."""
    scored = [(s, i) for i in rows if (s := ranked[i]) is not None]
    if len(scored) < 2:
        return list(rows)
    best = max(scored, key=lambda pair: pair[0])[1]
    worst = min((pair for pair in scored if pair[1] != best), key=lambda pair: pair[0])[1]
    return [best, worst, *(i for i in rows if ranked[i] is None)]


def _chosen(rows: Sequence[int], found: dict[int, Judgement]) -> tuple[float, float] | None:
    """The best and the worst score among the asked reports of a group: equal scores are equally good a choice."""
    scores = [s for i in rows if i in found and (s := found[i].score) is not None]
    return (max(scores), min(scores)) if scores else None


def _is_audited(group: str) -> bool:
    return hashlib.sha256(group.encode("utf-8", "surrogatepass")).digest()[0] % AUDITED == 0


def _passed_over(cheap: float | None) -> Judgement:
    details: dict[str, Any] = {"cheap": cheap, "passed_over": True}
    return Judgement(None, "not asked: the cheap judge puts it between the best and the worst of its group", details)


def wilson(hits: int, n: int, z: float = 1.6448536269514722) -> tuple[float, float]:
    """Wilson's score interval of a share (90 % by default): (centre ∓ z·√(p(1-p)/n + z²/4n²)) / (1 + z²/n)."""
    p = hits / n
    centre, spread = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
