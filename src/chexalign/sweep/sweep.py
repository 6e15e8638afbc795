"""`chexalign sweep`: many settings trained from one baseline, picked on the validation split, shown on the test split.

An arm (an entry of the grid under one seed) is a branch of the run: a folder of its own in `sweep/` with its own manifest and
stages, which reads studies, baseline, pairs and reference log-probs from the run. A finished arm is not repeated; a killed
one resumes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from chexalign import __version__
from chexalign.errors import WorkError
from chexalign.jsonl import atomic_write, read_json, write_json
from chexalign.judges import from_recipe as load_judge
from chexalign.progress import say
from chexalign.recipe.recipe import Recipe
from chexalign.recipe.sweep import Sweep
from chexalign.recipe.train import Train
from chexalign.run.folder import PAIRING, STAGES, Run, Stage, check_same, lock
from chexalign.run.judges import judges_of, with_visual_defaults
from chexalign.stages.runner import run_stage, run_stages
from chexalign.sweep.grid import grid_entries
from chexalign.sweep.results import FAILED, entry_row, mark_picked, reason, trained, validation_scores, write_results
from chexalign.sweep.validate import validation_studies

BASELINE = "baseline"  # its folder in sweep/
SHARED_STAGES = tuple(STAGES)[: list(STAGES).index("train")]


def sweep(recipe: Recipe) -> Run:
    """The run as far as its entries need it, then every arm of `sweep.grid`; writes sweep.json. Running it again resumes."""
    entries = grid_entries(recipe)
    offline = any(not e.train.online for e in entries)
    select = recipe.sweep.select or _length_controlled(recipe.pairs.judge if offline else recipe.train.watch.judge)
    load_judge(select, recipe.judges)
    for entry in entries:
        judges_of(with_visual_defaults(recipe.model_copy(update={"train": entry.train}), recipe.run_dir or Path()))
    trunk = [name for name in STAGES if name in SHARED_STAGES and (offline or name not in PAIRING)]
    for part in (trunk[:1], trunk):
        run = run_stages(recipe, part, pairs=offline)
        validation_studies(run)  # before hours of sampling
    with lock(run.dir):
        shown = _judges(recipe, select, offline)
        baseline = _branch(run, BASELINE, Train(), shown, "validate_baseline")
        branches = {e.label: [_branch(run, a.label, a.train, shown, "validate") for a in e.arms] for e in entries}
        run_stage(baseline, "validate")
        arms = [(arm, branch) for e in entries for arm, branch in zip(e.arms, branches[e.label], strict=True)]
        for i, (arm, branch) in enumerate(arms, 1):
            say(f"sweep: {arm.label} ({i} of {len(arms)})")
            _train(branch, arm.label)
        before = validation_scores(baseline)
        rows = [entry_row(e, branches[e.label], before) for e in entries]
        best = mark_picked(rows, select)
        others = [e.label for e in entries if e.label not in best and recipe.sweep.evaluate == "all"]
        tested = {label: [b for b in branches[label] if trained(b)] for label in [*best, *others]}
        _evaluate([branch for found in tested.values() for branch in found])
        write_results(run, select, rows, before, tested, best[0])
    return run


def _length_controlled(judge: str) -> str:
    """CheXalign picks by LC-GREEN, not by the GREEN that made the pairs: the latter lets reports grow."""
    if judge.startswith(("lc_", "lc(")):
        return judge
    return f"lc({judge})" if set(judge) & set(" (*+") else f"lc_{judge}"  # a line of several judges, or one name


def _judges(recipe: Recipe, select: str, offline: bool) -> tuple[str, ...]:
    """What every branch is judged by: the recipe's judges, the pairs' where there are pairs, and the one that picks."""
    pairs = (recipe.pairs.judge, _length_controlled(recipe.pairs.judge)) if offline else ()
    return tuple(dict.fromkeys([*recipe.evaluate.judges, *pairs, select]))


def _branch(run: Run, label: str, train: Train, judges: tuple[str, ...], validate: str) -> Run:
    """The run's branch in sweep/<label>/. Raises RecipeError if it was made with other settings."""
    folder, recipe = run.path(f"sweep/{label}"), run.recipe
    changed = {
        "name": f"{recipe.name}.{label}",
        "run_dir": folder,
        "train": train,
        "sweep": Sweep(samples=recipe.sweep.samples, limit=recipe.sweep.limit),  # validation depends on these alone
        "evaluate": recipe.evaluate.model_copy(update={"judges": judges}),
    }
    own_stage = Stage(
        f"chexalign.sweep.validate:{validate}", ("sweep",), "validation.json", ("validation.json", "validation")
    )
    evaluate = STAGES["evaluate"]
    stages = {**{n: s for n, s in STAGES.items() if s is not evaluate}, "validate": own_stage, "evaluate": evaluate}
    saved = folder / "manifest.json"
    manifest = read_json(saved) if saved.exists() else {"chexalign": __version__, "stages": {}}
    branch = Run(recipe.model_copy(update=changed), folder, manifest, trunk=run.dir, stages=stages)
    check_same(branch)
    return branch


def _train(run: Run, label: str) -> None:
    """Train and validate one arm. One whose training fails keeps the reason, and the sweep goes on."""
    if not trained(run):
        say(f"{label}: failed before ({reason(run)}); delete {run.dir} to try it again")
        return
    try:
        run_stage(run, "train")
    except WorkError as error:
        say(f"{label}: failed: {error}")
        write_json(run.path(FAILED), {"reason": str(error)})
        shutil.rmtree(run.path("train"), ignore_errors=True)
        return
    run_stage(run, "validate")


def _evaluate(branches: Sequence[Run]) -> None:
    """The branches on the test split, the baseline only once: each branch takes what the one before it has of it."""
    for before, branch in zip([None, *branches], branches, strict=False):
        if before:
            _lend_baseline(before, branch)
        run_stage(branch, "evaluate")


def _lend_baseline(lender: Run, borrower: Run) -> None:
    """What the baseline wrote on the test split, and its verdicts, are the same for every entry: hand them on."""
    for source in lender.path("evaluation").glob("baseline.*.jsonl"):
        target = borrower.path("evaluation") / source.name
        if not target.exists():
            with open(source, "rb") as lent, atomic_write(target, "wb") as handle:
                shutil.copyfileobj(lent, handle)
