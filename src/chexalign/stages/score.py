"""Stage `score`: every judge on every completion, against the radiologist's report → verdicts.jsonl."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from chexalign.errors import WorkError
from chexalign.jsonl import Ledger
from chexalign.judges import from_recipe as load_judge
from chexalign.judges.contract import Judge, context_of, reward
from chexalign.judges.request import RewardRequest
from chexalign.progress import progress, say
from chexalign.recipe.recipe import Recipe
from chexalign.records import Completion, Study, Verdict
from chexalign.run.folder import Run, StageResult
from chexalign.run.judges import shown_by_score
from chexalign.run.task import reference

BATCH = 256  # completions between two flushes to the disk


def score_completions(run: Run) -> StageResult:
    """Score the sampled completions with `score.judges`."""
    completions = run.completions()
    studies = run.studies_by_id()
    rows = judge_to(run, "verdicts.jsonl", completions, studies, run.recipe.score.judges, "judging reports")
    abstained = {f"{j}: abstained": sum(r.score is None for r in rows if r.judge == j) for j in run.recipe.score.judges}
    return StageResult(len(completions), len(rows), {k: n for k, n in abstained.items() if n})


def judge_to(
    run: Run, file: str, completions: Sequence[Completion], studies: dict[str, Study], judges: Sequence[str], label: str
) -> list[Verdict]:
    """Score `completions` with each judge into a ledger, the run's `file`; resumes after the last flushed batch."""
    ledger = Ledger(run.path(file), Verdict)
    total = len(completions) * len(judges)
    order = {c.key(): i for i, c in enumerate(completions)}
    place = {name: i for i, name in enumerate(judges)}
    with progress(label, total, "verdicts", len(ledger.rows)) as ticker:
        for name in judges if not ledger.finished else ():
            judge = load_judge(name, run.recipe.judges, shown_by_score(name))
            _same_version(ledger, judge.version, name)
            for batch in _batches([c for c in completions if (*c.key(), name) not in ledger], completions, judge):
                rows = _verdicts(judge, name, batch, [studies[c.study_id] for c in batch], run.recipe)
                rows = [r for r in rows if r.key() not in ledger]
                _keep(ledger, name, rows)
                ticker.advance(len(rows))
            for line in _spent(judge):
                say(line)
    rows = ledger.finish(lambda r: (order[r.study_id, r.sample_index], place[r.judge]))
    for name in judges:
        reasons = [r.error for r in rows if r.judge == name and r.error]
        if reasons:
            say(f"{name} abstained on {len(reasons)} of {len(completions)} reports, first reason: {reasons[0]}")
    return rows


def _batches(
    todo: Sequence[Completion], everyone: Sequence[Completion], judge: Judge
) -> Iterator[Sequence[Completion]]:
    """Batches of what is to be judged. A judge that compares the reports of a study gets all of them together."""
    if "group" not in context_of(judge):
        yield from (todo[start : start + BATCH] for start in range(0, len(todo), BATCH))
        return
    wanted = {c.study_id for c in todo}
    batch: list[Completion] = []
    groups = groupby(sorted((c for c in everyone if c.study_id in wanted), key=_study), key=_study)
    for _, group in groups:
        batch += group
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _study(completion: Completion) -> str:
    return completion.study_id


def _keep(ledger: Ledger[Verdict], name: str, rows: Sequence[Verdict]) -> None:
    """Write a batch down. When the judge's server is gone, what it could not answer is left for the next run: WorkError."""
    gone = next((r.error for r in rows if _says(r.details, "unavailable")), None)
    ledger.append([r for r in rows if not (gone and _says(r.details, "passing"))])
    if gone:
        kept = sum(r.judge == name for r in ledger.rows.values())
        raise WorkError(f"judge {name}: {gone}; {kept} of its verdicts are kept, the same command asks for the others")


def _says(details: dict[str, Any], word: str) -> bool:
    """A judge's note about itself, or about a part of it (llm/reply.py)."""
    return bool(details.get(word)) or any(_says(part["details"], word) for part in details.get("parts", {}).values())


def _spent(judge: Judge) -> list[str]:
    """What asking language models has cost, a line per judge and part that asks one."""
    own = judge.summary() if hasattr(judge, "summary") else None
    return [*([own] if own else []), *(line for part in getattr(judge, "parts", ()) for line in _spent(part))]


def _same_version(ledger: Ledger[Verdict], version: str, name: str) -> None:
    """Verdicts of two versions of a judge do not mix: a pair would compare what cannot be compared."""
    if old := next(
        (r.judge_version for r in ledger.rows.values() if r.judge == name and r.judge_version != version), None
    ):
        raise WorkError(f"{ledger.part} holds {name} verdicts of version {old}, now {version}; delete it and run again")


def _verdicts(
    judge: Judge, name: str, completions: Sequence[Completion], studies: Sequence[Study], recipe: Recipe
) -> list[Verdict]:
    start = time.perf_counter()
    references = [reference(recipe, s) for s in studies]
    groups = [c.study_id for c in completions]
    written = [c.text if c.written is None else c.written for c in completions]
    request = RewardRequest([c.text for c in completions], references, studies, groups, written=written)
    answers = reward(judge, request)
    seconds = round((time.perf_counter() - start) / max(1, len(completions)), 6)
    return [
        Verdict(
            study_id=c.study_id,
            sample_index=c.sample_index,
            judge=name,
            score=a.score,
            error=a.error,
            details=a.details,
            judge_version=judge.version,
            seconds=seconds,
        )
        for c, a in zip(completions, answers, strict=True)
    ]
