"""Run the stages of a recipe in their order: lock the folder, resume, keep the manifest."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

from chexalign import processes
from chexalign.errors import RecipeError, WorkError
from chexalign.progress import say
from chexalign.recipe.recipe import Recipe
from chexalign.run.folder import (
    PAIRING,
    STAGES,
    TOGETHER,
    Run,
    StageResult,
    check_same,
    forget,
    leftovers,
    lock,
    open_run,
    settings_of,
)
from chexalign.run.judges import judges_of
from chexalign.versions import git_commit, versions


def run_stage(run: Run, name: str) -> None:
    """Run one stage, or resume it, or say that it is finished. The manifest is updated before and after the work.

    A stage that fails without leaving anything behind is forgotten, so that its settings can be put right.
    """
    stage, stages = run.stages[name], run.manifest["stages"]
    if stages.get(name, {}).get("finished") and run.path(stage.product).exists():
        say(f"{name}: already finished ({run.path(stage.product)})")
        return
    spent = stages.get(name, {}).get("seconds", 0.0)
    made_with = _made_with(run.recipe)
    run.manifest |= {"recipe": run.recipe.model_dump(mode="json"), "seeds": {"recipe": run.recipe.seed}, **made_with}
    stages[name] = {"settings": settings_of(run, name), **made_with, "finished": None, "seconds": spent}
    run.save_manifest()
    module, _, function = stage.function.partition(":")
    start = time.monotonic()
    try:
        result: StageResult = getattr(importlib.import_module(module), function)(run)
    except (RecipeError, WorkError):
        if not leftovers(run, name):
            del stages[name]
            run.save_manifest()
        raise
    stages[name] |= {
        "rows_in": result.rows_in,
        "rows_out": result.rows_out,
        "dropped": result.dropped,
        **({"extra": result.extra} if result.extra else {}),
        "seconds": round(spent + time.monotonic() - start, 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    run.save_manifest()
    say(
        f"{name}: {result.rows_in} in, {result.rows_out} out, {stages[name]['seconds']:.1f} s → {run.path(stage.product)}"
    )


def _made_with(recipe: Recipe) -> dict[str, Any]:
    """What makes a stage's rows what they are, beside its settings: kept with each stage, as of when it ran."""
    found = {name: judge.version for name, judge in judges_of(recipe).items()}
    return {"versions": versions(), "git": git_commit(), "judges": found}


@contextmanager
def _held(recipe: Recipe, restart: str | None) -> Iterator[None]:
    """The run folder locked, found to be this recipe's, and cleared from stage `restart` on."""
    with lock(open_run(recipe).dir):
        run = open_run(recipe)  # as the process that held the lock left it
        if restart:
            forget(run, restart)
        check_same(run)
        run.save_manifest()
        yield


def run_stages(recipe: Recipe, names: list[str], restart: str | None = None, pairs: bool = False) -> Run:
    """Lock the run folder, check that it is this recipe's, and run the named stages in the order of the road.

    `pairs`: make them even where the recipe's own algorithm needs none.

    Under a launcher of several processes the main one holds the folder, and all of them train.
    """
    processes.check_launch(names, TOGETHER)
    with processes.joined(), ExitStack() as stack:
        processes.main_alone(lambda: stack.enter_context(_held(recipe, restart)))
        run = open_run(recipe)
        for name in STAGES:
            if name in names and not (name == "warmup" and recipe.warmup is None):
                if recipe.train.online and name in PAIRING and not pairs:
                    say(f"{name}: not needed, {recipe.train.algorithm.type} learns from rewards of its own samples")
                else:
                    run_stage(run, name)
    return run
