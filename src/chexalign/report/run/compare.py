"""Runs side by side: each run's scores, and the paired difference between their aligned policies on shared studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from chexalign import corpus, stats
from chexalign.errors import WorkError
from chexalign.report import wording
from chexalign.report.inputs import mapping, read_manifest, read_results, read_rows
from chexalign.report.run.tables import SYMBOLS, by_importance, not_read
from chexalign.report.wording import (
    DASH,
    FEWEST_STUDIES,
    NARROW,
    Cell,
    cell,
    count,
    interval,
    number,
    percent,
    score,
    verdict,
    whole,
)

Scores = dict[str, float | None]
Counts = dict[str, np.ndarray]


@dataclass(frozen=True)
class ComparedRow:
    """One metric of one run: its own two cells, and its aligned policy minus that of the first run."""

    metric: str
    run: str
    baseline: Cell
    aligned: Cell
    difference: Cell | None  # None for the first run, and for what has no scores per study
    is_first: bool


@dataclass(frozen=True)
class ComparedRuns:
    """Long, not wide: one row per metric and run; `notes` say what keeps the runs from being comparable."""

    runs: tuple[str, ...]
    level: float
    n_shared: dict[str, int]  # run → studies it shares with the first one
    rows: tuple[ComparedRow, ...]
    notes: tuple[str, ...]

    def to_table(self) -> Table:
        """A Rich table; print it with `rich.console.Console().print`."""
        first = self.runs[0]
        shared = ", ".join(f"{whole(n)} with {run}" for run, n in self.n_shared.items())
        title = f"Difference: aligned policy minus that of {first}, temperature 1, shared studies: {shared}"
        notes = "".join(f"\nNote: {note}." for note in self.notes)
        marks = f"▲ ▼ the {percent(self.level)} interval excludes 0, ○ it does not, – nothing to pair.\n"
        marks += f"Below {FEWEST_STUDIES} scored studies neither an interval nor a mark is shown.\n"
        marks += "Baseline and aligned: each run on all its own studies, temperature 1."
        marks += "".join(f"\n{line}" for line in map(_left, self.rows) if line)
        table = Table(title=_plain(title), caption=_plain(marks + notes), title_justify="left", caption_justify="left")
        for name in ("metric", "run", "baseline", "aligned", "difference", "interval"):
            table.add_column(name, justify="left" if name in ("metric", "run") else "right")
        for row in self.rows:
            texts = (row.metric if row.is_first else "", row.run, *_numbers(row))
            table.add_row(*(_plain(text) for text in texts), end_section=row.run == self.runs[-1])
        return table


def _numbers(row: ComparedRow) -> tuple[str, str, str, str]:
    own = score(row.baseline.mean, row.metric), score(row.aligned.mean, row.metric)
    if row.is_first:
        return *own, "", ""
    if row.difference is None:
        return *own, DASH, DASH
    change = f"{SYMBOLS[verdict(row.difference)][0]} {score(row.difference.mean, row.metric, signed=True)}".strip()
    return *own, change, interval(row.difference.low, row.difference.high, row.metric)


def _left(row: ComparedRow) -> str:
    """What a run's judge could not read and where it abstained, baseline / aligned; nothing where it read all."""
    said = [] if (unread := not_read(row.baseline, row.aligned)) in ("0", DASH) else [f"not read {unread}"]
    if row.baseline.abstained or row.aligned.abstained:
        said.append(f"abstained {whole(row.baseline.abstained)} / {whole(row.aligned.abstained)} studies")
    return f"{row.metric} in {row.run}, baseline / aligned: {'; '.join(said)}." if said else ""


def _plain(text: str) -> Text:
    """Text without markup and without characters that could steer the terminal."""
    text = text.replace(NARROW, " ")
    return Text("".join(c if c.isprintable() or c == "\n" else "�" for c in text))


def compare_runs(run_dirs: Sequence[Path]) -> ComparedRuns:
    """Compare finished runs with the first of them.

    Raises WorkError for fewer than two runs, a run that is not evaluated, or runs that share fewer than 2 studies.
    """
    if len(run_dirs) < 2:
        raise WorkError("compare needs at least two run folders")
    names = _names(run_dirs)
    results = [read_results(folder) for folder in run_dirs]
    scores = [_aligned_scores(folder) for folder in run_dirs]
    counts = [_aligned_counts(folder) for folder in run_dirs]
    level = number(results[0].level) or 0.9
    settings = {"n_boot": count(results[0].n_bootstrap) or 1000, "seed": 0, "level": level}
    shared = [sorted(set(scores[0]) & set(own)) for own in scores]
    for name, studies in zip(names[1:], shared[1:], strict=True):
        if len(studies) < 2:
            raise WorkError(f"{names[0]} and {name} share {len(studies)} evaluated studies; a comparison needs 2")
    rows = []
    metrics = {m for r in results for side in ("baseline", "aligned") for m in r.overall.side(side)}
    for metric in sorted(metrics, key=by_importance(results[0])):
        for i, name in enumerate(names):
            own = [cell(results[i].overall.side(side), metric) for side in ("baseline", "aligned")]
            change = _difference(metric, scores[0], scores[i], shared[i], settings) if i else None
            if i and change is None:
                change = _corpus_difference(metric, counts[0], counts[i], shared[i], settings)
            rows.append(ComparedRow(metric, name, own[0], own[1], change, is_first=i == 0))
    n_shared = {name: len(studies) for name, studies in zip(names[1:], shared[1:], strict=True)}
    return ComparedRuns(tuple(names), level, n_shared, tuple(rows), tuple(_notes(names, run_dirs, scores, shared)))


def headline(run_dir: Path) -> list[str]:
    """What a finished run shows, as lines for the terminal: one sentence per headline metric, then the warnings."""
    results = read_results(run_dir)
    sentences = [wording.headline(metric, results.overall, results.level) for metric in results.headline]
    warnings = [f"Warning: {warning}" for warning in results.warnings]
    return [line.replace(NARROW, " ") for line in (*sentences, *warnings)]


def _names(run_dirs: Sequence[Path]) -> list[str]:
    """Folder names; whole paths where two folders have the same name."""
    names = [folder.resolve().name for folder in run_dirs]
    return names if len(set(names)) == len(names) else [str(folder) for folder in run_dirs]


def _aligned_scores(folder: Path) -> dict[str, Scores]:
    """Study → metric → score of the aligned policy at temperature 1; the length counts as a metric."""
    path = folder / "evaluation" / "per_study.jsonl"
    rows = read_rows(path)
    if rows is None:
        raise WorkError(f"{path} is missing: evaluate the run first")
    found: dict[str, Scores] = {}
    for row in rows:
        if row.get("decoding") == "temperature_1" and row.get("policy") == "aligned":
            study = str(row.get("study_id"))
            if study in found:
                raise WorkError(f"{path} holds study {study} twice")
            found[study] = {metric: number(value) for metric, value in mapping(row.get("scores")).items()}
            found[study] |= {name: number(row.get(name)) for name in ("words", "reference_words")}
    return found


def _difference(
    metric: str, first: dict[str, Scores], other: dict[str, Scores], studies: Sequence[str], settings: dict[str, Any]
) -> Cell | None:
    """`other` minus `first` on the shared studies; None where the metric has no per-study scores in both."""
    if not all(any(metric in own[study] for study in studies) for own in (first, other)):
        return None
    a, b = ([own[study].get(metric) for study in studies] for own in (first, other))
    return cell({metric: stats.paired_difference(a, b, **settings)}, metric)


def _aligned_counts(folder: Path) -> dict[str, Counts]:
    """Study → family → counts of the aligned policy at temperature 1; studies of older run folders have none."""
    rows = read_rows(folder / "evaluation" / "per_study.jsonl") or []
    kept = [r for r in rows if r.get("decoding") == "temperature_1" and r.get("policy") == "aligned"]
    return {str(row.get("study_id")): corpus.read_row(mapping(row.get("counts"))) for row in kept}


def _corpus_difference(
    metric: str, first: dict[str, Counts], other: dict[str, Counts], studies: Sequence[str], settings: dict[str, Any]
) -> Cell | None:
    """The same for a metric of the whole corpus; None where a shared study has no counts for it in one of the runs."""
    known = corpus.all_metrics(corpus.FAMILIES)
    if metric not in known:
        return None
    family, value = known[metric]
    if not all(family in own[study] for own in (first, other) for study in studies):
        return None
    counts = [np.array([own[study][family] for study in studies]) for own in (first, other)]
    return cell({metric: stats.corpus_cells(counts, value, **settings)[2]}, metric)


def _evaluated_with(folder: Path) -> dict[str, Any]:
    """Judge versions as of the evaluation, not of the folder's last opening."""
    manifest = read_manifest(folder)
    evaluated = mapping(mapping(manifest.get("stages")).get("evaluate"))
    return mapping(evaluated.get("judges") or manifest.get("judges"))


def _notes(
    names: Sequence[str], run_dirs: Sequence[Path], scores: Sequence[dict[str, Scores]], shared: Sequence[list[str]]
) -> list[str]:
    """What the reader must know before trusting a difference: other judges, references or studies."""
    judges = [_evaluated_with(folder) for folder in run_dirs]
    notes = []
    for i, name in enumerate(names[1:], 1):
        for judge in sorted(set(judges[0]) & set(judges[i])):
            if judges[0][judge] != judges[i][judge]:
                versions = f"{judges[0][judge]} in {names[0]}, {judges[i][judge]} in {name}"
                notes.append(f"judge {judge} has version {versions}: their scores are not comparable")
        changed = sum(scores[0][s]["reference_words"] != scores[i][s]["reference_words"] for s in shared[i])
        if changed:
            notes.append(f"{changed} shared studies have another reference report in {name} than in {names[0]}")
        if len(shared[i]) < max(len(scores[0]), len(scores[i])):
            sizes = f"{len(scores[0])} in {names[0]}, {len(scores[i])} in {name}"
            notes.append(f"only {len(shared[i])} studies are shared ({sizes})")
    return notes
