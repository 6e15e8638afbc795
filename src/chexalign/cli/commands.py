"""Commands. Exit codes: 0 done, 1 the work failed, 2 the call or the recipe is wrong."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from chexalign import processes, versions
from chexalign.cli import finished as cli_use
from chexalign.cli import judges as cli_judges
from chexalign.errors import RecipeError, WorkError, printable
from chexalign.progress import complain, console, say

app = typer.Typer(
    name="chexalign",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Make chest X-ray report models clinically better without new radiologist labels.\n\n"
    "Start with: chexalign demo",
)

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name or its .yaml file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value …]", help="Recipe settings to change, e.g. sample.n=8.")
]
Quick = Annotated[bool, typer.Option("--quick", help="The recipe's small form, where it defines one.")]


def _go(
    recipe: str, overrides: list[str] | None, quick: bool, stages: list[str], page: bool, restart: str | None = None
) -> None:
    _quiet_libraries()
    from chexalign.recipe.files import load_recipe
    from chexalign.stages.runner import run_stages

    run = run_stages(load_recipe(recipe, overrides, quick), stages, restart)
    if page:
        from chexalign.report.run.page import write_page

        console.print(f"page: {write_page(run.dir).resolve()}", markup=False, soft_wrap=True)
    if page and run.path("results.json").exists():
        from chexalign.report.run.compare import headline

        for line in headline(run.dir):
            say(line)


def _quiet_libraries() -> None:
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity_error()
    if warning := versions.outside():
        say(f"Warning: {warning}")


def _all_stages() -> list[str]:
    from chexalign.run.folder import STAGES

    return list(STAGES)


@app.command()
def demo(
    overrides: Overrides = None,
    run_dir: Annotated[Path | None, typer.Option(help="Where to put the run (default runs/demo).")] = None,
) -> None:
    """The whole road on the built-in phantom data, on a CPU, in minutes.

    Example: chexalign demo
    """
    extra = [f"run_dir={run_dir}"] if run_dir else []
    _go("demo", [*(overrides or []), *extra], False, _all_stages(), True)


@app.command()
def run(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    quick: Quick = False,
    restart: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Remove what this stage and later ones wrote, and begin there.")
    ] = None,
) -> None:
    """All stages of a recipe. Run it again to resume.

    Example: chexalign run recipes/tiny.yaml seed=1
    """
    _go(recipe, overrides, quick, _all_stages(), True, restart)


def _stage_command(name: str, what: str, example: str) -> None:
    def command(recipe: RecipeArgument, overrides: Overrides = None, quick: Quick = False) -> None:
        _go(recipe, overrides, quick, [name], False)

    command.__doc__ = f"{what}\n\nExample: {example}"
    app.command(name=name)(command)


_stage_command("studies", "Read the source → studies.jsonl.", "chexalign studies iu_xray_smoke studies.root=DIR")
_stage_command("warmup", "Make the baseline → baseline/.", "chexalign warmup tiny")
_stage_command("sample", "Draw N reports per training study → completions.jsonl.", "chexalign sample tiny sample.n=8")
_stage_command("score", "Judge the reports → verdicts.jsonl.", "chexalign score tiny")
_stage_command("pairs", "Best against worst → pairs.jsonl, and TRL's format.", "chexalign pairs tiny")
_stage_command("train", "Align the baseline on the pairs → policy/.", "chexalign train tiny train.lr=1e-5")
_stage_command("evaluate", "Baseline against aligned → results.json.", "chexalign evaluate tiny")


@app.command()
def sweep(recipe: RecipeArgument, overrides: Overrides = None, quick: Quick = False) -> None:
    """Train a grid of algorithms and settings on one set of pairs; pick on validation, show on test. Run again to resume.

    Example: chexalign sweep recipes/sweep_phantom.yaml
    """
    _quiet_libraries()
    from chexalign.recipe.files import load_recipe
    from chexalign.report.sweep.page import summary, tables_of, write_sweep_page
    from chexalign.sweep.sweep import sweep as run_sweep

    done = run_sweep(load_recipe(recipe, overrides, quick))
    page = write_sweep_page(done.dir).resolve()
    for text in (tables_of(done.dir), f"page: {page}", f"tables: {page.with_suffix('.md')}"):
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    for line in summary(done.dir):
        say(line)


@app.command()
def report(recipe: RecipeArgument, overrides: Overrides = None, quick: Quick = False) -> None:
    """Write the page again from a run's files. RECIPE may also be the run's folder.

    Example: chexalign report runs/demo
    """
    from chexalign.report.run.page import write_page

    folder = Path(recipe)
    if not (folder / "manifest.json").is_file():
        from chexalign.recipe.files import load_recipe

        loaded = load_recipe(recipe, overrides, quick)
        folder = loaded.run_dir or Path("runs") / loaded.name
    console.print(f"page: {write_page(folder).resolve()}", markup=False, soft_wrap=True)


@app.command()
def compare(runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN …", help="Run folders.")]) -> None:
    """Runs side by side, with paired bootstrap on the studies they share.

    Example: chexalign compare runs/demo runs/demo-beta05
    """
    from chexalign.report.run.compare import compare_runs

    if len(runs) < 2:
        raise RecipeError(f"compare needs two run folders or more, got {runs[0]}")
    cli_judges.print_table(compare_runs(runs).to_table())


@app.command()
def recipes() -> None:
    """What recipes there are, with one line each.

    Example: chexalign recipes
    """
    from chexalign.recipe.files import recipe_folders

    seen: set[str] = set()
    for folder in recipe_folders():
        for path in sorted(folder.glob("*.yaml")):
            if path.stem not in seen:
                seen.add(path.stem)
                lines = path.read_text(encoding="utf-8").splitlines()
                print(f"{path.stem:<18} {lines[1].lstrip('# ') if len(lines) > 1 else ''}")


@app.command()
def check(recipe: RecipeArgument, overrides: Overrides = None, quick: Quick = False) -> None:
    """Look before the run: files, image tokens, truncation, patient leakage, empty references, disk.

    Example: chexalign check iu_xray_smoke studies.root=/data/iu_xray
    """
    from chexalign.recipe.files import load_recipe
    from chexalign.stages.check import check_recipe

    problems = 0
    for ok, line in check_recipe(load_recipe(recipe, overrides, quick)):
        print(f"{'ok     ' if ok else 'PROBLEM'} {printable(line, len(line))}")
        problems += not ok
    if problems:
        raise WorkError(f"{problems} problem{'s' if problems > 1 else ''} found; nothing was written")


cli_judges.register(app)
cli_use.register(app)


def main() -> None:
    """The console script: one clear line for every expected failure."""
    os.umask(os.umask(0o077) | 0o077)  # reports and images of patients: what is written is its owner's alone
    # Idle OpenMP threads sleep instead of spinning: 8 times faster beside two busy programs (docs/evidence/log.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if processes.count() > 1:  # DDP warns where no parameter was unused, and cannot know that a later one will be
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        app()
    except RecipeError as error:
        say(f"error: {error}")
        sys.exit(2)
    except WorkError as error:
        complain(str(error))
        sys.exit(1)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or "while writing"
            complain(f"the disk is full ({where}); free some space and run the same command again")
        else:
            complain(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted; the same command resumes")
        sys.exit(130)
