"""FactS (OraPO): does a report state the facts that hold? F-beta over the CheXpert-14 labels that its facts entail.

A report is split into atomic facts, and each fact says which labels are present, absent or uncertain. Against the labels of
the reference: TP present in both; FP present in the report alone, or denied by the report and present in the reference (a
contradiction); FN present in the reference alone. Then

    P = TP / (TP + FP + eps)     R = TP / (TP + FN + eps)     F = (1 + beta²) P R / (beta² P + R + eps)

exactly 0 when TP is 0 (OraPO counts zero rewards), and 1 when there is nothing to find and nothing is claimed. beta > 1
favours recall, and invites over-calling: precision and recall are in the details. The paper's text gives neither beta nor
eps nor its prompts. # beta 2, eps 1e-8, the 13 findings without No Finding, the prompt: our choices

Offline (default) the facts are clauses and the labels are read by our rules; with a language model both come from one
answer per text, for the reference as for the report.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from chexalign.errors import Abstain, RecipeError
from chexalign.judges.columns import library_form
from chexalign.judges.contract import (
    ANY_LANGUAGE,
    Judgement,
    Studies,
    is_blank,
    same_length,
    without_judging,
    without_reading,
)
from chexalign.judges.findings.scrutiny import (
    NOTHING_OWED,
    Scrutiny,
    after_comparing,
    before_comparing,
    charged,
    scrutinize,
)
from chexalign.judges.findings.statements import version
from chexalign.judges.findings.truth import UNASKED, truth_of
from chexalign.judges.prompted import entailment
from chexalign.judges.prompted.base import LlmJudge, abstained, fill, prompt_text
from chexalign.judges.prompted.parsing import json_object, parse_failed
from chexalign.judges.prompted.sheet import BY_NAME, STATUS, FactSheet, no_finding
from chexalign.labels import LABELS, find_mentions, positive_set, sum_up
from chexalign.labels.readability import ENGLISH
from chexalign.llm.reply import Reply, user

_CLAUSE_END = re.compile(r"(?<=[.;:!?])\s+|\n+|,?\s+(?=(?:but|however|although|whereas|while)\b)", re.IGNORECASE)


@dataclass(kw_only=True)
class Facts(LlmJudge):
    """OraPO's FactS reward, 0 to 1. `beta` over 1 favours recall; its value and `eps` are not given: our choice."""

    beta: float = 2.0
    eps: float = 1e-8
    no_finding: bool = False  # count No Finding as a 14th label: a normal template then earns 1 on normal studies
    uncertain: Literal["positive", "negative"] = "positive"
    truth: Literal["report", "labels"] = "report"  # labels: what the study's source knows, in place of its report
    steps: Literal["one", "two"] = (
        "one"  # of a language model: facts and labels in one answer, or facts and then entailment
    )

    kind = "facts"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps == "two" and not self.has_model:
            raise RecipeError("facts: steps two asks a language model twice; add model (and url), or remove steps")
        if self.beta <= 0 or self.eps < 0:
            raise RecipeError(f"facts: beta is {self.beta:g} and eps {self.eps:g}; beta must be above 0, eps not below")

    @property
    def name(self) -> str:
        """Plain `facts` is the offline form: the rule labeller entails, no model is asked."""
        return f"facts[{self.model_name}]" if self.has_model else "facts"

    @property
    def version(self) -> str:
        """Every option that changes a score, and the prompts' digests or the rules' version."""
        how = f"{self._prompts}, {self.llm_version}" if self.has_model else f"rules {version()}"
        labels = 14 if self.no_finding else 13
        against = ", truth labels" if self.truth == "labels" else ""
        return f"2 beta {self.beta:g} eps {self.eps:g}, {labels} labels, uncertain {self.uncertain}{against}, {how}"

    @property
    def _prompts(self) -> str:
        return f"prompt {prompt_text('facts.txt')[1]}" if self.steps == "one" else entailment.versions()

    @library_form
    def score(self, reports: Sequence[str], references: Sequence[str], studies: Studies = None) -> list[Judgement]:
        """Against the reports in `references`, or with `truth: labels` against the labels of `studies`."""
        same_length(reports, references)
        if self.truth == "labels":
            return self._against_labels(reports, studies)
        pairs = list(zip(reports, references, strict=True))
        reads = ANY_LANGUAGE if self.has_model else ENGLISH
        plain = [without_judging(*pair, reads=reads) for pair in pairs]
        texts = list(
            dict.fromkeys(t for pair, answer in zip(pairs, plain, strict=True) if answer is None for t in pair)
        )
        sheets = dict(zip(texts, self._read(texts), strict=True))
        return [answer or self._one(*pair, sheets) for pair, answer in zip(pairs, plain, strict=True)]

    def _against_labels(self, reports: Sequence[str], studies: Studies) -> list[Judgement]:
        if studies is None:
            return [Judgement(None, UNASKED)] * len(reports)
        wanted = None if self.has_model else ENGLISH
        plain = [without_reading(report, 0.0, wanted) for report in reports]
        texts = list(dict.fromkeys(r for r, answer in zip(reports, plain, strict=True) if answer is None))
        sheets = dict(zip(texts, self._read(texts), strict=True))
        found = []
        for report, study, answer in zip(reports, studies, plain, strict=True):
            try:
                truth: Mapping[str, int | None] = truth_of(study)
            except Abstain as reason:
                found.append(Judgement(None, str(reason)))
                continue
            found.append(answer or self._judge(sheets[report], truth))
        return found

    def _read(self, texts: Sequence[str]) -> list[FactSheet | Abstain]:
        if not self.has_model:
            return [read_by_rules(text) for text in texts]
        if self.steps == "two":
            return entailment.read_in_two(self, texts)
        template, _ = prompt_text("facts.txt")
        replies = self.ask([user(fill(template, REPORT=text.strip())) for text in texts])
        return [reply if isinstance(reply, Abstain) else read_reply(reply) for reply in replies]

    def _one(self, report: str, reference: str, sheets: Mapping[str, FactSheet | Abstain]) -> Judgement:
        said, truth = sheets[report], sheets[reference]
        if isinstance(truth, Abstain):
            return abstained(type(truth)(f"the reference: {truth}"))
        return self._judge(said, truth.labels, truth.scrutiny or NOTHING_OWED)

    def _judge(
        self, said: FactSheet | Abstain, truth: Mapping[str, int | None], theirs: Scrutiny = NOTHING_OWED
    ) -> Judgement:
        if isinstance(said, Abstain):
            return abstained(type(said)(f"the report: {said}"))
        ours = said.scrutiny
        try:
            if ours and (nothing := before_comparing(ours, theirs)) is not None:
                return Judgement(nothing[0], details=nothing[1])
        except Abstain as reason:
            return abstained(reason)
        both = charged(ours, theirs)[1] if ours else frozenset[str]()
        score, details = self.compare(said.labels, truth, both)
        if ours:
            score, told = after_comparing(score, {}, ours, theirs)
            details = {**details, "unread": told["unread"]}
        return Judgement(score, details={**details, "facts": list(said.facts), **said.cost})

    def compare(
        self,
        said: Mapping[str, int | None],
        truth: Mapping[str, int | None],
        both: frozenset[str] = frozenset(),
    ) -> tuple[float, dict[str, Any]]:
        """`both`: labels that the report states and denies, a contradiction too."""
        left_out = set() if self.no_finding else {"No Finding"}
        sets = [positive_set(x, uncertain_is_positive=self.uncertain == "positive") - left_out for x in (said, truth)]
        claimed, holds = sets
        contradicted = {label for label in holds if said.get(label) == 0} | (both & holds)
        tp, fp, fn = claimed & holds, (claimed - holds) | contradicted, holds - claimed
        precision, recall, score = f_beta(len(tp), len(fp), len(fn), beta=self.beta, eps=self.eps)
        named = {"tp": sorted(tp), "fp": sorted(fp), "fn": sorted(fn), "contradicted": sorted(contradicted)}
        return score, {"precision": precision, "recall": recall, **named}


def f_beta(tp: int, fp: int, fn: int, *, beta: float, eps: float) -> tuple[float, float, float]:
    """Precision, recall and F-beta. All 1 when there is nothing to count; F is exactly 0 when tp is 0."""
    if not tp + fp + fn:
        return 1.0, 1.0, 1.0
    if not tp:
        return 0.0, 0.0, 0.0
    p, r = tp / (tp + fp + eps), tp / (tp + fn + eps)
    return p, r, (1 + beta**2) * p * r / (beta**2 * p + r + eps)


def clauses(text: str) -> list[tuple[int, int]]:
    """Where the clauses of a text start and end."""
    ends = [(m.start(), m.end()) for m in _CLAUSE_END.finditer(text)]
    starts = [0, *(end for _, end in ends)]
    found = list(zip(starts, [*(start for start, _ in ends), len(text)], strict=True))
    return [(a, b) for a, b in found if not is_blank(text[a:b])]


def read_by_rules(text: str) -> FactSheet:
    """Clauses are the facts; each mention that the labeller finds, read in its sentence, belongs to the clause it is in."""
    mentions = find_mentions(text)
    words = {status: word for word, status in STATUS.items()}
    facts = []
    for start, end in clauses(text):
        here = {m.label: words[m.status] for m in mentions if start <= m.start < end}
        facts.append({"fact": text[start:end].strip(), "labels": here})
    return FactSheet(tuple(facts), sum_up(mentions), {}, scrutinize(text))


def read_reply(reply: Reply) -> FactSheet | Abstain:
    """The facts of a model's answer; an Abstain (`parse_failed: …`) when they are not as asked for."""
    try:
        facts = [_fact(row) for row in _rows(json_object(reply))]
    except Abstain as reason:
        return reason
    statuses: dict[str, set[int]] = {}
    for fact in facts:
        for label, status in fact["labels"].items():
            statuses.setdefault(label, set()).add(STATUS[status])
    labels = {label: next((s for s in (1, -1, 0) if s in statuses.get(label, ())), None) for label in LABELS}
    return FactSheet(tuple(facts), no_finding(labels), reply.facts())


def _rows(answer: dict[str, Any]) -> list[Any]:
    rows = answer.get("facts")
    if not isinstance(rows, list):
        raise parse_failed('the answer has no list "facts"')
    return rows


def _fact(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict) or not isinstance(row.get("fact"), str) or not isinstance(row.get("labels", {}), dict):
        raise parse_failed(f'a fact is not {{"fact": …, "labels": {{…}}}}: {str(row)[:60]!r}')
    labels = {}
    for name, status in row.get("labels", {}).items():
        if str(name).lower() not in BY_NAME or str(status).lower() not in STATUS:
            raise parse_failed(f"no such label or status: {str(name)[:40]!r}: {str(status)[:40]!r}")
        labels[BY_NAME[str(name).lower()]] = str(status).lower()
    return {"fact": row["fact"], "labels": labels}
