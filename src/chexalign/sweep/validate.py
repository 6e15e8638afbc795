"""Stage `validate` of a sweep's entry: its policy on the validation split."""

from __future__ import annotations

from collections.abc import Sequence

from chexalign.errors import WorkError
from chexalign.jsonl import write_json
from chexalign.records import Study
from chexalign.run.folder import Run, StageResult
from chexalign.run.policies import open_policy, prompts_for
from chexalign.run.task import reference
from chexalign.stages.evaluate import BATCH
from chexalign.stages.sample import Sampling, generate_to
from chexalign.stages.score import judge_to


def validation_studies(run: Run) -> list[Study]:
    """The first `sweep.limit`. Raises WorkError where there is no validation split."""
    studies = run.studies("val")
    if not studies:
        raise WorkError("a sweep picks on validation studies and there are none; raise studies.val_share")
    return studies[: run.recipe.sweep.limit]


def validate(run: Run) -> StageResult:
    """Stage `validate` of an entry: its policy on the validation split → validation.json, scores per study."""
    return _validate(run, "aligned")


def validate_baseline(run: Run) -> StageResult:
    """The same for the baseline."""
    return _validate(run, "baseline")


def _validate(run: Run, which: str) -> StageResult:
    """`sweep.samples` reports per study at temperature 1; a study's score is the mean of its reports' scores."""
    studies, settings, judges = validation_studies(run), run.recipe.sweep, run.recipe.evaluate.judges
    policy = open_policy(run, which)
    sampling = Sampling(
        n=settings.samples,
        temperature=1.0,
        max_new_tokens=run.recipe.sample.max_new_tokens,
        batch_size=max(1, BATCH // settings.samples),
        seed=run.recipe.seed + 1,
    )
    path, prompts = run.path("validation/completions.jsonl"), prompts_for(run, policy, studies)
    rows = generate_to(path, policy, studies, prompts, sampling, "validation reports")
    by_id = {s.study_id: s for s in studies}
    verdicts = judge_to(run, "validation/verdicts.jsonl", rows, by_id, judges, "judging validation reports")
    values: dict[str, dict[str, list[float]]] = {name: {i: [] for i in by_id} for name in (*judges, "words")}
    for verdict in verdicts:
        if verdict.score is not None:
            values[verdict.judge][verdict.study_id].append(verdict.score)
    for row in rows:
        values["words"][row.study_id].append(float(len(row.text.split())))
    scores = {name: [_mean(found[i]) for i in by_id] for name, found in values.items()}
    reference_words = sum(len(reference(run.recipe, s).split()) for s in studies) / len(studies)
    validation = {"studies": list(by_id), "reference_words": reference_words, "scores": scores}
    write_json(run.path("validation.json"), validation)
    return StageResult(len(studies), len(rows), {})


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
