"""`chexalign scorecard`: every judge measured on rated reports and on attacks → scorecard.json and scorecard.md.

Rated reports are JSON lines in a folder: {reference, report, rating_mean} and, where known, case, source,
significant_errors_mean and raters. Ranking tests are JSON files of {category, tests}. Judges that cannot run here are
listed with the reason, never left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from chexalign.errors import RecipeError, WorkError
from chexalign.jsonl import atomic_write, write_json
from chexalign.judges.contract import Judge, context_of
from chexalign.judges.registry import JUDGES, Options
from chexalign.scorecard import agreement
from chexalign.scorecard.agreement import Rated
from chexalign.scorecard.inputs import read_ratings, read_reports
from chexalign.scorecard.measure import measure
from chexalign.scorecard.summary import Card, answer, markdown, rating_of

LINES = ("lc_finding_f1_weighted", "lc_rouge_l")  # measured beside the plain judges when none are named


@dataclass(frozen=True)
class ScorecardSettings:
    """What `chexalign scorecard` was asked for; `options` are judges' own, by name."""

    lines: Sequence[str] | None  # the judges to measure; None: all that can run here
    data: Path | None  # the folder with rated reports
    reports: str  # openi, phantom or a JSON-lines file with `findings`, `report` or `text`
    n_reports: int
    out: Path  # the folder that is written
    options: Options


def run_scorecard(settings: ScorecardSettings, tell: Callable[[str], None]) -> Card:
    """Measure and write; `tell` is called with the line of each judge before it is measured."""
    lines, data, options = settings.lines, settings.data, settings.options
    rated, tests, problems = read_ratings(data) if data else ([], [], [])
    texts = read_reports(settings.reports, settings.n_reports)
    card: Card = {
        "chexalign": version("chexalign"),
        "data": str(data) if data else None,
        "reports": settings.reports,
        "n_reports": len(texts),
        "n_rated": len(rated),
        "n_cases": len({r.case for r in rated}),
        "level": agreement.LEVEL,
        "resamples": agreement.RESAMPLES,
        "raters": agreement.raters(rated),
        "problems": problems,
        "judges": [],
        "unavailable": [],
    }
    for line in lines or [*JUDGES, *LINES]:
        tell(f"{line} …")
        try:
            card["judges"].append({"line": line, **measure(_judge(line, options), rated, tests, texts)})
        except (RecipeError, WorkError) as error:
            if lines and isinstance(error, RecipeError):
                raise
            card["unavailable"].append({"judge": line, "why": str(error)})
    _rank(card, rated)
    card["answer"] = answer(card)
    write_json(settings.out / "scorecard.json", card)
    with atomic_write(settings.out / "scorecard.md") as file:
        file.write(markdown(card))
    return card


def _judge(line: str, options: Options) -> Judge:
    """Raises WorkError where a judge cannot run here, or is not one of single reports."""
    from chexalign.judges.line import parse, plain_names

    for name in plain_names(line):
        if why := JUDGES[name].unavailable(**options.get(name, {})):
            raise WorkError(why)
    judge = parse(line, options)
    if context := context_of(judge):
        raise WorkError(f"it judges a report by its {' and '.join(sorted(context))}, not alone")
    return judge


def _rank(card: Card, rated: Sequence[Rated]) -> None:
    """Best agreement first, each with its paired difference to the best; `scores` leave the card."""
    card["judges"].sort(key=lambda row: -2.0 if rating_of(row) is None else rating_of(row), reverse=True)
    best = card["judges"][0].get("scores") if card["judges"] else None
    for row in card["judges"]:
        scores = row.pop("scores", None)
        if best is not None and scores is not None:
            row["behind_best"] = agreement.paired_difference(best, scores, rated)
