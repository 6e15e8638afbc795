"""`chexalign scorecard`: every judge measured on rated reports and on attacks → scorecard.json and scorecard.md.

Rated reports are JSON lines in a folder: {reference, report, rating_mean} and, where known, case, source,
significant_errors_mean and raters. Ranking tests are JSON files of {category, tests}. Judges that cannot run here are
listed with the reason, never left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from chexalign.errors import RecipeError, WorkError
from chexalign.jsonl import atomic_write, read_json, read_lines, write_json
from chexalign.judges import JUDGES
from chexalign.scorecard import agreement
from chexalign.scorecard.agreement import Rated
from chexalign.judges.contract import Judge, context_of
from chexalign.scorecard.measure import measure

LINES = ("lc_finding_f1_weighted", "lc_rouge_l")  # measured beside the plain judges when none are named
NAMED = 4  # attacks named in a line of the table
TEMPLATE = "normal template on abnormal studies"
Card = dict[str, Any]
Options = Mapping[str, Mapping[str, Any]]


def run_scorecard(
    lines: Sequence[str] | None,
    data: Path | None,
    reports: str,
    n_reports: int,
    out: Path,
    options: Options,
    tell: Callable[[str], None],
) -> Card:
    """Measure and write; `reports` is openi, phantom or a JSON-lines file with `findings`, `report` or `text`."""
    rated, tests, problems = read_ratings(data) if data else ([], [], [])
    texts = read_reports(reports, n_reports)
    card: Card = {
        "chexalign": version("chexalign"),
        "data": str(data) if data else None,
        "reports": reports,
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
    write_json(out / "scorecard.json", card)
    with atomic_write(out / "scorecard.md") as file:
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


def read_options(path: Path | None) -> Options:
    """The options by judge name in a YAML file. Raises RecipeError with what is wrong."""
    if path is None:
        return {}
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"--options {path} cannot be read: {error}") from error
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise RecipeError(f"--options {path} must hold options by judge name, for example green: {{url: …, model: …}}")
    return rows


def read_ratings(folder: Path) -> tuple[list[Rated], list[dict[str, Any]], list[str]]:
    """Rated reports and ranking tests of a folder, and one line for each row that cannot be used."""
    if not folder.is_dir():
        raise WorkError(f"--data {folder} is no folder; give one with rated reports as .jsonl files")
    rated: list[Rated] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, row in read_lines(path):
            made = row if isinstance(row, str) else _rated(row, f"{path.stem}:{number}")
            if isinstance(made, Rated):
                rated.append(made)
            else:
                problems.append(f"{path.name}, line {number}: {made}; the line is left out")
    return rated, list(_tests(folder)), problems


def _rated(row: dict[str, Any], name: str) -> Rated | str:
    texts = [row.get(key) for key in ("reference", "report")]
    if not all(isinstance(t, str) and t.strip() for t in texts):
        return "reference and report must be texts"
    numbers = {key: row.get(key) for key in ("rating_mean", "significant_errors_mean")}
    if not isinstance(numbers["rating_mean"], int | float):
        return "rating_mean must be a number"
    marks = [rater.get("rating") for rater in row.get("raters") or [] if isinstance(rater, dict)]
    errors = numbers["significant_errors_mean"]
    return Rated(
        case=str(row.get("case", name)),
        source=str(row.get("source", "all")),
        reference=str(texts[0]),
        report=str(texts[1]),
        rating=float(numbers["rating_mean"]),
        significant_errors=float(errors) if isinstance(errors, int | float) else None,
        raters=tuple(float(m) for m in marks if isinstance(m, int | float)),
    )


def _tests(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*ranking_tests.json")):
        for group in read_json(path):
            for test in group["tests"]:
                yield {"category": group["category"], **test}


def read_reports(where: str, n: int) -> list[str]:
    """n distinct reports, drawn with seed 0 where there are more. Raises WorkError with the remedy where there are none."""
    if where == "openi":
        from chexalign.data.openi import read_openi

        texts = [s.findings for s in read_openi(None, lambda patient: "test")]
    elif where == "phantom":
        from chexalign.data.phantom import make_study

        texts = [make_study(0, i, 32)[0].findings for i in range(2 * n)]
    else:
        path = Path(where)
        if not path.is_file():
            raise WorkError(
                f"--reports {where}: give openi, phantom or a JSON-lines file with findings, report or text"
            )
        rows = [row for _, row in read_lines(path) if isinstance(row, dict)]
        texts = [str(row.get("findings") or row.get("report") or row.get("text") or "") for row in rows]
    texts = sorted({t for t in texts if any(c.isalnum() for c in t)})
    if len(texts) < 20:
        raise WorkError(f"--reports {where} holds {len(texts)} distinct reports; the scorecard needs 20")
    random.Random(0).shuffle(texts)
    return texts[:n]


def _rank(card: Card, rated: Sequence[Rated]) -> None:
    """Best agreement first, each with its paired difference to the best; `scores` leave the card."""
    card["judges"].sort(key=lambda row: -2.0 if _rating(row) is None else _rating(row), reverse=True)
    best = card["judges"][0].get("scores") if card["judges"] else None
    for row in card["judges"]:
        scores = row.pop("scores", None)
        if best is not None and scores is not None:
            row["behind_best"] = agreement.paired_difference(best, scores, rated)


def _rating(row: Card) -> float | None:
    return row.get("agreement", {}).get("rating", {}).get("mean")


def trust(row: Card) -> list[str]:
    """The attacks a judge falls for, in words."""
    fooled = [e["edit"] for e in row["edits"] if e["good"] is False]
    fooled += [c["case"] for c in row["cases"] if c["good"] is False and c["case"] not in fooled]
    abnormal = row["template"]["abnormal"]
    if None not in (abnormal["template"], abnormal["other"]) and abnormal["template"] >= abnormal["other"]:
        fooled.append(TEMPLATE)
    return fooled


def answer(card: Card) -> list[str]:
    """Which judge to trust for what, in a few sentences, from the numbers of the card alone."""
    judged = [row for row in card["judges"] if _rating(row) is not None]
    said = []
    if judged:
        best = judged[0]
        cell = best["agreement"]["rating"]
        said.append(
            f"{best['name']} agrees best with the radiologists: rank correlation with their mean rating {cell['mean']:.2f}, "
            f"{card['level']:.0%} interval {cell['low']:.2f} to {cell['high']:.2f} ({cell['n']} reports on "
            f"{card['n_cases']} cases)."
        )
        tied = [r["name"] for r in judged[1:] if (d := r.get("behind_best")) and d["low"] is not None and d["low"] <= 0]
        if tied:
            said.append(f"Not measurably worse: {', '.join(tied)}.")
        elif len(judged) > 1:
            said.append("Every other judge measured here is measurably worse.")
        if "finding_f1_weighted" in {row["name"].removeprefix("lc_") for row in judged}:
            said.append(
                "finding_f1_weighted was made with RadPref's 100 rated reports in sight (docs/scorecard.md): on those, its "
                "agreement is flattered; expect less on others."
            )
        if card["raters"] and card["raters"]["mean"] is not None:
            said.append(f"One radiologist against the mean of the others reaches {card['raters']['mean']:.2f}.")
    else:
        said.append("Agreement with radiologists was not measured: give --data DIR with rated reports.")
    sound = [row["name"] for row in card["judges"] if not trust(row) and any(e["good"] for e in row["edits"])]
    said.append(
        f"No attack tried here fools {', '.join(sound)}."
        if sound
        else "Every judge falls for at least one attack; see below."
    )
    hacked = [row["name"] for row in card["judges"] if TEMPLATE in trust(row)]
    if hacked:
        said.append(
            "On abnormal studies a fixed normal report earns as much as another radiologist's, or more, under "
            f"{', '.join(hacked)}: do not train on these alone."
        )
    if judged and (rate := judged[0]["speed"]["cached_references"] or judged[0]["speed"]["cold"]):
        said.append(f"{judged[0]['name']} scores {rate:,.0f} reports per second here, references cached, one process.")
    return said


def markdown(card: Card) -> str:
    """The tables for the docs."""
    head = "| judge | rating | significant errors | preference | abstained | reports/s | falls for |"
    lines = [*(f"- {s}" for s in card["answer"]), "", head, "|---" * 7 + "|"]
    for row in card["judges"]:
        found = row.get("agreement", {})
        cells = [_cell(found.get(key)) for key in ("rating", "significant_errors", "preference")]
        rate = row["speed"]["cached_references"] or row["speed"]["cold"]
        cells += [
            f"{found.get('abstained', 0) + row['reports_abstained']}",
            f"{rate:,.0f}" if rate else "–",
            _attacks(row),
        ]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    lines += ["", *(f"- {u['judge']}: not available here: {u['why']}" for u in card["unavailable"])]
    return "\n".join(lines) + "\n"


def _attacks(row: Card) -> str:
    """How many attacks fool the judge, and the first of them; the page has them all."""
    fooled = trust(row)
    shown = "; ".join(fooled[:NAMED]) + ("; …" if len(fooled) > NAMED else "")
    return f"{len(fooled)}: {shown}" if fooled else "none"


def _cell(found: dict[str, Any] | None) -> str:
    if not found or found.get("mean") is None:
        return "–"
    span = f" [{found['low']:.2f}, {found['high']:.2f}]" if found.get("low") is not None else ""
    return f"{found['mean']:.3f}{span}"
