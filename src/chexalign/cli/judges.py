"""Commands about judges: score one text, list them all, measure which to trust."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from chexalign.errors import RecipeError, WorkError
from chexalign.progress import console, say


def register(app: typer.Typer) -> None:
    """Adds `judge`, `judges` and `scorecard` to the program; called once, by the front door."""
    for command in (judge, judges, scorecard):
        app.command()(command)


def judge(
    reference: Annotated[str, typer.Option(help="The radiologist's text.")],
    report: Annotated[str, typer.Option(help="The text to score.")],
    judge: Annotated[str, typer.Option(help="A judge's name; see `chexalign judges`.")] = "finding_f1",
    option: Annotated[list[str] | None, typer.Option(help="One of its options as key=value; may be repeated.")] = None,
) -> None:
    """Score one text and print the details as JSON.

    Example: chexalign judge --judge finding_f1 --reference "Small left effusion." --report "Left effusion."
    """
    import json

    import yaml

    from chexalign.judges import load

    if odd := [o for o in option or () if "=" not in o]:
        raise RecipeError(f"--option {odd[0]!r} is not key=value")
    try:
        options = {key: yaml.safe_load(value) for key, _, value in (o.partition("=") for o in option or ())}
    except yaml.YAMLError as error:
        raise RecipeError(f"--option: {' '.join(str(error).split())}") from error
    one = load(judge, **options)
    answer = one.score([report], [reference])[0]
    row = {"judge": one.name, "version": one.version, "score": answer.score, "error": answer.error}
    print(json.dumps({**row, "details": answer.details}, indent=1, ensure_ascii=False, default=list))
    if answer.score is None:
        raise WorkError(f"{one.name} abstained: {answer.error}")


def judges() -> None:
    """What judges there are: range, direction, cost, needs, what is missing here, blind spots; and how to combine them.

    Example: chexalign judges
    """
    from rich.table import Table
    from rich.text import Text

    from chexalign.judges.line import FUNCTIONS
    from chexalign.judges.registry import JUDGES

    table = Table(title="Judges (lc_ in front of any: length-controlled)", title_justify="left", expand=True)
    table.add_column("name", no_wrap=True)
    for column, ratio in (("what it measures", 5), ("range, better", 2), ("cost", 2), ("needs", 4), ("blind to", 5)):
        table.add_column(column, ratio=ratio)
    for name, entry in JUDGES.items():
        why = entry.unavailable()
        needs = (
            f"{entry.needs}; NOT HERE: {why}"
            if why
            else f"{entry.needs}{'' if entry.needs == 'nothing' else ' (here)'}"
        )
        span = f"{entry.range}, {entry.direction.removesuffix(' is better')}"
        row = (name, entry.description, span, entry.cost, needs, entry.blind_to)
        table.add_row(*(Text(cell) for cell in row))
    print_table(table)
    functions = ", ".join(how for how, *_ in FUNCTIONS.values())
    say(
        f"combine them in one line, e.g. 0.7*finding_f1 + 0.3*rouge_l, or with {functions}; see docs/understand/judges.md"
    )


def scorecard(
    judges: Annotated[str, typer.Option(help="Judges to measure, with commas between; all when left out.")] = "",
    data: Annotated[Path | None, typer.Option(help="Folder with rated reports (.jsonl).")] = None,
    reports: Annotated[str, typer.Option(help="Reports to attack: openi, phantom or a .jsonl file.")] = "openi",
    n: Annotated[int, typer.Option(help="How many of these reports.", min=20)] = 300,
    options: Annotated[Path | None, typer.Option(help="A YAML file like a recipe's judges: section.")] = None,
    out: Annotated[Path, typer.Option(help="Where to write.")] = Path("runs/scorecard"),
) -> None:
    """Which judge to trust: agreement with radiologists, attacks, length, speed → scorecard.html, .json and .md.

    Example: chexalign scorecard --data /data/rated_reports
    """
    from chexalign.report.scorecard.page import write_scorecard_page
    from chexalign.scorecard.inputs import read_options
    from chexalign.scorecard.run import ScorecardSettings, run_scorecard

    lines = [
        line.strip() for line in re.split(r",(?![^()]*\))", judges) if line.strip()
    ] or None  # not inside min(a, b)
    card = run_scorecard(ScorecardSettings(lines, data, reports, n, out, read_options(options)), say)
    console.print(f"page: {write_scorecard_page(card, out).resolve()}", markup=False, soft_wrap=True)
    for line in card["answer"]:
        say(line)


def print_table(table: object) -> None:
    """A rich table on standard output: as wide as the terminal, 160 columns in a file or pipe, so that nothing is cut."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160).print(table)
