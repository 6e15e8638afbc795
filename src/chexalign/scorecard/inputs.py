"""What a scorecard reads: judge options, rated reports, ranking tests, plain reports."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from chexalign.data.registry import some_reports, with_some_reports
from chexalign.errors import RecipeError, WorkError
from chexalign.jsonl import read_json, read_lines
from chexalign.judges.registry import Options
from chexalign.scorecard.agreement import Rated


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
            rating = row if isinstance(row, str) else _rated(row, f"{path.stem}:{number}")
            if isinstance(rating, Rated):
                rated.append(rating)
            else:
                problems.append(f"{path.name}, line {number}: {rating}; the line is left out")
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
    texts = some_reports(where, n)
    if texts is None:
        path = Path(where)
        if not path.is_file():
            raise WorkError(
                f"--reports {where}: give {', '.join(with_some_reports())} or a JSON-lines file with findings, report or text"
            )
        rows = [row for _, row in read_lines(path) if isinstance(row, dict)]
        texts = [str(row.get("findings") or row.get("report") or row.get("text") or "") for row in rows]
    texts = sorted({t for t in texts if any(c.isalnum() for c in t)})
    if len(texts) < 20:
        raise WorkError(f"--reports {where} holds {len(texts)} distinct reports; the scorecard needs 20")
    random.Random(0).shuffle(texts)
    return texts[:n]
