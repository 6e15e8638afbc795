"""Which of two reports is better? RGRO's judge: a language model is shown both, in both orders; disagreement is a tie.

    judge = chexalign.judges.load("pairwise", url="http://127.0.0.1:8000/v1", model="…")
    judge.compare(reference, a, b).winner          # 1: a, -1: b, 0: tie, None: no answer, and `error` says why

It compares two texts, so it scores no report alone: in a group (the samples of one study) a report's reward is the mean
over the others of win 1, tie ½, loss 0. Offline (default) the winner is the sign of another judge's difference, where
that exceeds `margin`. RGRO gives neither prompt nor model nor tie rule: they are our choices.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

from chexalign.errors import Abstain, RecipeError
from chexalign.judges import load
from chexalign.judges.columns import library_form
from chexalign.judges.contract import Judge, Judgement, Studies, context_of, same_length, without_judging
from chexalign.judges.prompted.base import LlmJudge, abstained, fill, missing_parts, prompt_text
from chexalign.judges.prompted.parsing import json_object, parse_failed
from chexalign.judges.registry import JUDGES
from chexalign.judges.request import RewardRequest
from chexalign.llm.reply import Messages, Reply, user

ASK = {
    "json": 'Answer with one JSON object and nothing else: {"better": "A"}, {"better": "B"} or {"better": "tie"}',
    "letter": "Answer with A, B or tie, and nothing else.",
}
WINS = {"a": 1, "b": -1, "tie": 0}


@dataclass(frozen=True)
class Preference:
    """`winner` is 1 for the first text, -1 for the second, 0 for a tie, None when `error` says why there is no answer."""

    winner: int | None
    error: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Pairwise(LlmJudge):
    """RGRO's comparison of two reports; the options of `LlmJudge` and three of its own."""

    judge: str = "finding_f1"  # offline: the judge whose difference decides
    margin: float = 0.0  # offline: a difference of no more than this is a tie
    answer: Literal["json", "letter"] = "json"

    kind = "pairwise"
    context = frozenset({"group"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin < 0:
            raise RecipeError(f"pairwise: margin is {self.margin:g}; it must not be below 0")
        if not self.has_model and context_of(self._scalar):
            raise RecipeError(
                f"pairwise: judge {self.judge!r} looks at a group or a step; name one that scores a report alone"
            )

    @cached_property
    def _scalar(self) -> Judge:
        return load(self.judge)

    @property
    def name(self) -> str:
        """Plain `pairwise` is the offline form, the sign of another judge's difference."""
        return f"pairwise[{self.model_name}]" if self.has_model else "pairwise"

    @property
    def version(self) -> str:
        """Prompt and form of the answer, or offline the other judge and the margin."""
        if not self.has_model:
            return f"1 sign of {self._scalar.name} ({self._scalar.version}), margin {self.margin:g}"
        return f"1 prompt {prompt_text('pairwise.txt')[1]}, {self.answer}, both orders, {self.llm_version}"

    def compare(self, reference: str, a: str, b: str) -> Preference:
        """A model is asked in both orders; where its answers disagree the winner is 0, a tie."""
        return self.compare_pairs([reference], [a], [b])[0]

    def compare_pairs(self, references: Sequence[str], first: Sequence[str], second: Sequence[str]) -> list[Preference]:
        """One Preference per row; `first` and `second` change places for the second question."""
        same_length(first, references)
        same_length(second, references)
        rows = list(zip(references, first, second, strict=True))
        known = {i: plain for i, row in enumerate(rows) if (plain := _plain(*row)) is not None}
        open_rows = [i for i in range(len(rows)) if i not in known]
        answer = self._by_model if self.has_model else self._by_score
        known |= dict(zip(open_rows, answer([rows[i] for i in open_rows]), strict=True))
        return [known[i] for i in range(len(rows))]

    def _by_score(self, rows: Sequence[tuple[str, str, str]]) -> list[Preference]:
        references = [row[0] for row in rows]
        sides = [self._scalar.score([row[side] for row in rows], references) for side in (1, 2)]
        return [self._sign(a, b) for a, b in zip(*sides, strict=True)]

    def _sign(self, a: Judgement, b: Judgement) -> Preference:
        if a.score is None or b.score is None:
            return Preference(None, a.error or b.error, {**a.details, **b.details})
        gap = a.score - b.score
        winner = 0 if abs(gap) <= self.margin else 1 if gap > 0 else -1
        return Preference(winner, details={"scores": [a.score, b.score]})

    def _by_model(self, rows: Sequence[tuple[str, str, str]]) -> list[Preference]:
        forward = [self._prompt(reference, a, b) for reference, a, b in rows]
        backward = [self._prompt(reference, b, a) for reference, a, b in rows]
        replies = self.ask(forward + backward)
        return [_agree(x, y) for x, y in zip(replies[: len(rows)], replies[len(rows) :], strict=True)]

    def _prompt(self, reference: str, a: str, b: str) -> Messages:
        text = fill(prompt_text("pairwise.txt")[0], REFERENCE=reference.strip(), A=a.strip(), B=b.strip())
        return user(text + ASK[self.answer])

    @library_form
    def score(self, reports: Sequence[str], references: Sequence[str], studies: Studies = None) -> list[Judgement]:
        """Raises RecipeError always: one report alone has nothing to be compared with."""
        raise RecipeError(
            f"{self.name} compares the reports of a group: use it for rewards or for pairs, not as a score"
        )

    def reward(self, request: RewardRequest) -> list[Judgement]:
        """Each report's share of wins against the others of its group; a group of one abstains."""
        reports, references, group_ids = request.reports, request.references, request.group_ids
        if group_ids is None:
            return self.score(reports, references)
        groups: dict[str, list[int]] = defaultdict(list)
        for i, group in enumerate(group_ids):
            groups[group].append(i)
        met = [pair for members in groups.values() for pair in combinations(members, 2)]
        found = self.compare_pairs(
            [references[i] for i, _ in met], [reports[i] for i, _ in met], [reports[j] for _, j in met]
        )
        results: list[list[Preference]] = [[] for _ in reports]
        for (i, j), preference in zip(met, found, strict=True):
            results[i].append(preference)
            results[j].append(replace(preference, winner=None if preference.winner is None else -preference.winner))
        return [_share(own) for own in results]


def missing(**options: Any) -> str | None:
    """For JUDGES: why it cannot run here. Without a language model it needs what its `judge` needs."""
    name = options.get("judge", Pairwise.judge)
    if not (options.get("model") or options.get("answers")):
        return JUDGES[name].unavailable() if name in JUDGES else None
    return missing_parts(**options)


def _plain(reference: str, a: str, b: str) -> Preference | None:
    """The answer that needs no judge: no reference, a report that is none, or the same text twice."""
    lost = [without_judging(text, reference) for text in (a, b)]
    if error := next((answer.error for answer in lost if answer and answer.error), None):
        return Preference(None, error)
    if any(lost) or a.split() == b.split():
        return Preference(bool(lost[1]) - bool(lost[0]), details={"note": "equal texts, or one that is no report"})
    return None


def read_choice(reply: Reply) -> int:
    """1 for A, -1 for B, 0 for tie. Raises Abstain (`parse_failed: …`) for anything else."""
    alone = re.fullmatch(r"\W*(?:(?:draft|report)\s+)?(A|B|tie)\W*", reply.text, re.IGNORECASE)
    word = alone[1] if alone else str(json_object(reply).get("better", ""))
    word = word.strip().lower().removeprefix("draft ")
    if word not in WINS:
        raise parse_failed(f"the better one is {word[:40]!r}, not A, B or tie")
    return WINS[word]


def _agree(forward: Reply | Abstain, backward: Reply | Abstain) -> Preference:
    """The winner when both orders name it, else a tie."""
    choices = []
    for reply in (forward, backward):
        try:
            if isinstance(reply, Abstain):
                raise reply
            choices.append(read_choice(reply))
        except Abstain as reason:
            failed = abstained(reason)
            return Preference(None, failed.error, failed.details)
    first, second = choices[0], -choices[1]
    agreed = first == second
    cost = [reply.facts() for reply in (forward, backward) if isinstance(reply, Reply)]
    return Preference(first if agreed else 0, details={"orders": [first, second], "agreed": agreed, "cost": cost})


def _share(own: Sequence[Preference]) -> Judgement:
    """Mean of win 1, tie ½, loss 0 over the comparisons that were answered."""
    answered = [p.winner for p in own if p.winner is not None]
    if not answered:
        details = {k: True for p in own for k in ("passing", "unavailable") if p.details.get(k)}
        return Judgement(None, own[0].error if own else "a group of one has nothing to compare with", details)
    won = {"wins": answered.count(1), "ties": answered.count(0), "losses": answered.count(-1)}
    return Judgement(
        sum((w + 1) / 2 for w in answered) / len(answered), details={**won, "unanswered": len(own) - len(answered)}
    )
