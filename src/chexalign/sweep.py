"""`chexalign sweep`: many settings trained on one set of pairs, picked on the validation split, shown on the test split.

An entry of the grid is a branch of the run: a folder of its own in `sweep/` with its own manifest and stages, which reads
studies, baseline, pairs and reference log-probs from the run. A finished entry is not repeated; a killed one resumes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from chexalign import __version__
from chexalign.errors import WorkError
from chexalign.evaluate import BATCH
from chexalign.jsonl import read_json, read_records, write_json
from chexalign.judges import from_recipe as load_judge
from chexalign.policies.open import open_policy, prompts_for
from chexalign.progress import say
from chexalign.recipe import Recipe, Train
from chexalign.records import Study
from chexalign.run import STAGES, Run, Stage, StageResult, check_same, lock, run_stage, run_stages
from chexalign.sample import generate_to
from chexalign.score import judge_to
from chexalign.sweep_grid import Entry, grid_entries
from chexalign.sweep_results import entry_row, mark_picked, validation_scores, write_results
from chexalign.tasks import reference

BASELINE = "baseline"  # its folder in sweep/


def sweep(recipe: Recipe) -> Run:
    """The run up to its pairs, then every entry of `sweep.grid`; writes sweep.json. Running it again resumes."""
    entries, select = grid_entries(recipe), recipe.sweep.select or _length_controlled(recipe.pairs.judge)
    load_judge(select, recipe.judges)
    trunk = list(STAGES)[: list(STAGES).index("train")]
    for part in (trunk[:1], trunk):
        run = run_stages(recipe, part)
        _validation_studies(run)  # before hours of sampling
    with lock(run.dir):
        baseline = _branch(run, BASELINE, Train(), select, "validate_baseline")
        branches = {e.label: _branch(run, e.label, e.train, select, "validate") for e in entries}
        run_stage(baseline, "validate")
        for i, entry in enumerate(entries, 1):
            say(f"sweep: {entry.label} ({i} of {len(entries)})")
            _train(branches[entry.label], entry)
        before = validation_scores(baseline)
        rows = [entry_row(branches[e.label], e, before) for e in entries]
        picked = {label: branches[label] for label in mark_picked(rows, select)}
        for branch in picked.values():
            _lend_baseline(next(iter(picked.values())), branch)
            run_stage(branch, "evaluate")
        write_results(run, select, rows, before, picked)
    return run


def _length_controlled(judge: str) -> str:
    """CheXalign picks by LC-GREEN, not by the GREEN that made the pairs: the latter lets reports grow."""
    if judge.startswith(("lc_", "lc(")):
        return judge
    return f"lc({judge})" if set(judge) & set(" (*+") else f"lc_{judge}"  # a line of several judges, or one name


def _branch(run: Run, label: str, train: Train, select: str, validate: str) -> Run:
    """The run's branch in sweep/<label>/. Raises RecipeError if it was made with other settings."""
    folder, recipe = run.path(f"sweep/{label}"), run.recipe
    judge = recipe.pairs.judge
    judges = tuple(dict.fromkeys([*recipe.evaluate.judges, judge, _length_controlled(judge), select]))
    changed = {
        "name": f"{recipe.name}.{label}",
        "run_dir": folder,
        "train": train,
        "sweep": recipe.sweep.model_copy(update={"grid": (), "select": None}),  # validation depends on the rest alone
        "evaluate": recipe.evaluate.model_copy(update={"judges": judges}),
    }
    own_stage = Stage(f"chexalign.sweep:{validate}", ("sweep",), "validation.json", ("validation.json", "validation"))
    evaluate = STAGES["evaluate"]
    stages = {**{n: s for n, s in STAGES.items() if s is not evaluate}, "validate": own_stage, "evaluate": evaluate}
    saved = folder / "manifest.json"
    manifest = read_json(saved) if saved.exists() else {"chexalign": __version__, "stages": {}}
    branch = Run(recipe.model_copy(update=changed), folder, manifest, trunk=run.dir, stages=stages)
    check_same(branch)
    return branch


def _train(run: Run, entry: Entry) -> None:
    """Train and validate one entry. An entry whose training fails keeps the reason, and the sweep goes on."""
    failed = run.path("failed.json")
    if failed.exists():
        say(f"{entry.label}: failed before ({read_json(failed)['reason']}); delete {run.dir} to try it again")
        return
    try:
        run_stage(run, "train")
    except WorkError as error:
        say(f"{entry.label}: failed: {error}")
        write_json(failed, {"reason": str(error)})
        shutil.rmtree(run.path("train"), ignore_errors=True)
        return
    run_stage(run, "validate")


def _validation_studies(run: Run) -> list[Study]:
    studies = [s for s in read_records(run.path("studies.jsonl"), Study) if s.split == "val"]
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
    studies, settings, judges = _validation_studies(run), run.recipe.sweep, run.recipe.evaluate.judges
    policy = open_policy(run, which)
    rows = generate_to(
        run.path("validation/completions.jsonl"),
        policy,
        studies,
        prompts_for(run, policy, studies),
        label="validation reports",
        seed=run.recipe.seed + 1,
        n=settings.samples,
        temperature=1.0,
        top_p=1.0,
        max_new_tokens=run.recipe.sample.max_new_tokens,
        batch_size=max(1, BATCH // settings.samples),
    )
    by_id = {s.study_id: s for s in studies}
    verdicts = judge_to(run, "validation/verdicts.jsonl", rows, by_id, judges, "judging validation reports")
    values: dict[str, dict[str, list[float]]] = {name: {i: [] for i in by_id} for name in (*judges, "words")}
    for verdict in verdicts:
        if verdict.score is not None:
            values[verdict.judge][verdict.study_id].append(verdict.score)
    for row in rows:
        values["words"][row.study_id].append(float(len(row.text.split())))
    scores = {name: [_mean(found[i]) for i in by_id] for name, found in values.items()}
    told = sum(len(reference(run.recipe, s).split()) for s in studies) / len(studies)
    write_json(run.path("validation.json"), {"studies": list(by_id), "reference_words": told, "scores": scores})
    return StageResult(len(studies), len(rows), {})


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _lend_baseline(lender: Run, borrower: Run) -> None:
    """What the baseline wrote on the test split, and its verdicts, are the same for every entry: hand them on."""
    for source in lender.path("evaluation").glob("baseline.*.jsonl"):
        target = borrower.path("evaluation") / source.name
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            fresh = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            shutil.copyfile(source, fresh)
            os.replace(fresh, target)
