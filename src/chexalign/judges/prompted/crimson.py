"""CRIMSON (Baharoon et al., 2026): findings weighted by what they mean for care. The arithmetic, from a JSON of findings.

A language model lists the abnormal findings of reference and report with their significance, matches them, and names the
errors. Weights w: urgent 1, actionable_not_urgent ½, not_actionable_not_urgent ¼, benign_expected 0; attribute errors:
significant ½, negligible 0. With N the reference's total weight, E the weight of false findings, and

    C = Σ over matched reference findings  w · w / (w + Σ attribute errors)

S = (C - E) / N, and score = S where S ≥ 0, else -x / (1 + x) with x = max(E - C, 0). N = 0: 1 without errors, else that
second form. In (-1, 1]; a normal text gets 0 on an abnormal study. Missing findings act through N alone.

The prompt is ours and shorter than the authors', on which their model was fine-tuned: CRIMSON as published is their package
crimson-score. The authors' code gives an unknown significance ¼ and an unknown id 0; here such an answer is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from chexalign.errors import Abstain
from chexalign.judges.columns import library_form
from chexalign.judges.contract import Judgement, Studies, same_length, without_judging
from chexalign.judges.prompted.base import LlmJudge, abstained, fill, prompt_text
from chexalign.judges.prompted.parsing import json_object, parse_failed
from chexalign.llm.reply import Messages, Reply, user

WEIGHTS = {"urgent": 1.0, "actionable_not_urgent": 0.5, "not_actionable_not_urgent": 0.25, "benign_expected": 0.0}
ATTRIBUTE = {"significant": 0.5, "negligible": 0.0}
WORST = -1.0  # of what is no report: the limit, below every report # our choice


@dataclass(kw_only=True)
class Crimson(LlmJudge):
    """-1 to 1: 1 all findings right, 0 nothing gained, below 0 more invented than found. Needs a language model."""

    kind = "crimson"

    @property
    def name(self) -> str:
        """With the model in it, since another model is another metric."""
        return f"crimson[{self.model_name}]"

    @property
    def version(self) -> str:
        """The prompt's digest is part of it: an edited prompt never meets old verdicts."""
        return f"1 prompt {prompt_text('crimson.txt')[1]}, {self.llm_version}"

    @library_form
    def score(self, reports: Sequence[str], references: Sequence[str], studies: Studies = None) -> list[Judgement]:
        """A study's indication is shown to the model where studies are given."""
        same_length(reports, references)
        indications = [s.indication.strip() for s in studies] if studies is not None else [""] * len(reports)
        rows = list(zip(reports, references, indications, strict=True))
        plain = {i: a for i, row in enumerate(rows) if (a := without_judging(row[0], row[1], WORST)) is not None}
        asked = [i for i in range(len(rows)) if i not in plain]
        replies = self.ask([_prompt(*rows[i]) for i in asked])
        answers = plain | {i: _judge(reply) for i, reply in zip(asked, replies, strict=True)}
        return [answers[i] for i in range(len(rows))]


def _prompt(report: str, reference: str, indication: str) -> Messages:
    context = f"\nIndication of the study: {indication}\n" if indication else ""
    fields = {"CONTEXT": context, "REFERENCE": reference.strip(), "CANDIDATE": report.strip()}
    return user(fill(prompt_text("crimson.txt")[0], **fields))


def _judge(reply: Reply | Abstain) -> Judgement:
    if isinstance(reply, Abstain):
        return abstained(reply)
    try:
        score, details = score_findings(json_object(reply))
    except Abstain as reason:
        return abstained(reason, **reply.facts())
    return Judgement(score, details={**details, **reply.facts()})


def score_findings(answer: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """CRIMSON of one answer in the form of prompts/crimson.txt. Raises Abstain (`parse_failed: …`) when it is not."""
    truth, said = _weights(answer, "reference_findings"), _weights(answer, "predicted_findings")
    errors = _get(answer, "errors", dict)
    false = _known(_get(errors, "false_findings", list), said, "false_findings")
    missing = _known(_get(errors, "missing_findings", list), truth, "missing_findings")
    pairs = _get(answer, "matched_findings", list)
    matched = _known([row.get("ref_id") if isinstance(row, dict) else row for row in pairs], truth, "matched_findings")
    penalty: dict[str, float] = defaultdict(float)
    for row in _get(errors, "attribute_errors", list):
        if not isinstance(row, dict) or row.get("ref_id") not in truth or row.get("severity") not in ATTRIBUTE:
            raise parse_failed(f"an attribute error without a known ref_id and severity: {str(row)[:60]!r}")
        penalty[row["ref_id"]] += ATTRIBUTE[row["severity"]]
    correct = sum(truth[i] * truth[i] / (truth[i] + penalty[i]) for i in matched if truth[i])
    wrong, lost = sum(said[i] for i in false), sum(truth[i] for i in missing)
    details = {"correct": correct, "false": wrong, "missing": lost, "total": sum(truth.values())}
    counts = {"n_false": len(false), "n_missing": len(missing), "n_matched": len(matched)}
    return crimson(correct, wrong, lost, sum(truth.values())), {**details, **counts}


def crimson(correct: float, false: float, missing: float, total: float) -> float:
    """The score from the weights of correct, false, missing and all reference findings."""
    if not total and not false and not missing:
        return 1.0
    if total and correct >= false:
        return (correct - false) / total
    excess = max(false - correct, 0.0)
    return -excess / (1 + excess)


def _weights(answer: dict[str, Any], name: Literal["reference_findings", "predicted_findings"]) -> dict[str, float]:
    """Finding id → weight."""
    found: dict[str, float] = {}
    for row in _get(answer, name, list):
        if (
            not isinstance(row, dict)
            or not isinstance(row.get("id"), str)
            or row.get("clinical_significance") not in WEIGHTS
        ):
            raise parse_failed(f"a row of {name} without an id and a known clinical_significance: {str(row)[:60]!r}")
        if row["id"] in found:
            raise parse_failed(f"{name} has {row['id']} twice")
        found[row["id"]] = WEIGHTS[row["clinical_significance"]]
    return found


def _get(value: dict[str, Any], name: str, kind: type) -> Any:
    if not isinstance(value.get(name), kind):
        raise parse_failed(f"no {'list' if kind is list else 'object'} {name!r} in the answer")
    return value[name]


def _known(ids: Sequence[Any], known: dict[str, float], name: str) -> list[str]:
    """The ids, each once. Raises Abstain for one that no finding has."""
    for one in ids:
        if not isinstance(one, str) or one not in known:
            raise parse_failed(f"{name} names {str(one)[:40]!r}, which is no finding")
    return list(dict.fromkeys(ids))
