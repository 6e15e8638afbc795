"""FactS in two questions, as OraPO writes it (section 3): a model lists a report's atomic facts, then says what they entail.

Neither prompt is published: both are ours (prompts/facts_extract.txt, prompts/facts_entail.txt).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chexalign.errors import Abstain
from chexalign.judges.prompted.base import LlmJudge, fill, prompt_text
from chexalign.judges.prompted.parsing import json_object, parse_failed
from chexalign.judges.prompted.sheet import BY_NAME, STATUS, FactSheet, no_finding
from chexalign.labels import LABELS
from chexalign.llm.reply import Reply, user

EXTRACT, ENTAIL = "facts_extract.txt", "facts_entail.txt"


def read_in_two(judge: LlmJudge, texts: Sequence[str]) -> list[FactSheet | Abstain]:
    """The fact sheet of each text; an Abstain where either answer is missing or not as asked for."""
    template, _ = prompt_text(EXTRACT)
    replies = judge.ask([user(fill(template, REPORT=text.strip())) for text in texts])
    facts = [reply if isinstance(reply, Abstain) else _facts(reply) for reply in replies]
    known = [i for i, found in enumerate(facts) if not isinstance(found, Abstain) and found]
    template, _ = prompt_text(ENTAIL)
    answers = judge.ask([user(fill(template, FACTS=_numbered(facts[i]))) for i in known])
    sheets = dict(zip(known, (_sheet(facts[i], a) for i, a in zip(known, answers, strict=True)), strict=True))
    return [
        sheets[i] if i in sheets else found if isinstance(found, Abstain) else FactSheet((), no_finding({}), {})
        for i, found in enumerate(facts)
    ]


def versions() -> str:
    """What names both prompts in a judge's version."""
    return f"prompts {prompt_text(EXTRACT)[1]} and {prompt_text(ENTAIL)[1]}"


def _facts(reply: Reply) -> list[str] | Abstain:
    try:
        facts = json_object(reply).get("facts")
        if not isinstance(facts, list) or not all(isinstance(f, str) for f in facts):
            raise parse_failed('the answer has no list "facts" of texts')
    except Abstain as reason:
        return reason
    return [f.strip() for f in facts if f.strip()]


def _numbered(facts: Any) -> str:
    return "\n".join(f"{number}. {' '.join(fact.split())}" for number, fact in enumerate(facts, 1))


def _sheet(facts: Any, reply: Reply | Abstain) -> FactSheet | Abstain:
    if isinstance(reply, Abstain):
        return reply
    rows: list[dict[str, Any]] = [{"fact": fact, "labels": {}} for fact in facts]
    labels: dict[str, int | None] = dict.fromkeys(LABELS)
    try:
        entailed = json_object(reply).get("labels")
        if not isinstance(entailed, dict):
            raise parse_failed('the answer has no object "labels"')
        for name, row in entailed.items():
            label, status, numbers = _entailed(name, row, len(facts))
            labels[label] = STATUS[status]
            for number in numbers:
                rows[number - 1]["labels"][label] = status
    except Abstain as reason:
        return reason
    return FactSheet(tuple(rows), no_finding(labels), reply.facts())


def _entailed(name: Any, row: Any, n: int) -> tuple[str, str, list[int]]:
    status = str(row.get("status")).lower() if isinstance(row, dict) else ""
    numbers = row.get("facts", []) if isinstance(row, dict) else []
    if str(name).lower() not in BY_NAME or status not in STATUS:
        raise parse_failed(f"no such label or status: {str(name)[:40]!r}: {str(row)[:40]!r}")
    if not isinstance(numbers, list) or not all(isinstance(k, int) and 1 <= k <= n for k in numbers):
        raise parse_failed(f"{name}: the facts {str(numbers)[:40]} are not numbers from 1 to {n}")
    return BY_NAME[str(name).lower()], status, numbers
