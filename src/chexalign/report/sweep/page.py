"""Writes `sweep.html`: what a sweep picked and what it gained, Figure 3, every entry, and the time each algorithm took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chexalign.errors import WorkError
from chexalign.report import wording
from chexalign.report.inputs import is_drawn, mapping, read_json, read_manifest
from chexalign.report.render import fill, put
from chexalign.report.run import figures, tables
from chexalign.report.run.page import write_page
from chexalign.report.run.tables import SYMBOLS, Value, value
from chexalign.report.sweep.chart import length_chart
from chexalign.report.sweep.curves import online_charts, zero_rows
from chexalign.report.sweep.tables import (
    algorithm_name,
    markdown,
    notes,
    seed_range,
    settings_of,
    split_tables,
    times,
)
from chexalign.report.wording import (
    NARROW,
    cell,
    count,
    metric_name,
    number,
    percent,
    score,
    sentence_name,
    whole,
)
from chexalign.results import Block


@dataclass(frozen=True)
class Line:
    """One entry of the grid as text."""

    algorithm: str
    settings: str
    label: str
    picked: str
    reason: str
    scores: tuple[Value, ...]  # of the shown metrics, on the validation split
    difference: Value  # of the selection metric
    symbol: str
    meaning: str
    words: str
    time: str


def write_sweep_page(run_dir: Path) -> Path:
    """Write `run_dir/sweep.html` in one step and return its path, and sweep.md; each evaluated training gets its own page.

    Raises WorkError where there is no sweep.
    """
    results = _read(run_dir)
    for entry in _entries(results):
        for label in _evaluated(entry):
            write_page(_folder(run_dir, label))
    put(run_dir / "sweep.md", markdown(results, _entries(results)))
    return put(run_dir / "sweep.html", render(run_dir, results))


def tables_of(run_dir: Path) -> str:
    """The tables of the test split as Markdown."""
    results = _read(run_dir)
    return markdown(results, _entries(results))


def summary(run_dir: Path) -> list[str]:
    """The answer and the warnings as lines for the terminal."""
    results = _read(run_dir)
    answer = [" ".join(filter(None, (line["symbol"], line["text"]))) for line in _answer(results)]
    return [line.replace(NARROW, " ") for line in (*answer, *(f"Warning: {w}" for w in _warnings(results)))]


def _read(run_dir: Path) -> dict[str, Any]:
    results = read_json(run_dir / "sweep.json", dict)
    if results is None:
        raise WorkError(f"{run_dir} has no sweep.json: run `chexalign sweep` first")
    return results


def _entries(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [mapping(entry) for entry in results.get("entries") or []]


def _winner(results: dict[str, Any]) -> dict[str, Any]:
    return next((e for e in _entries(results) if e.get("label") == results.get("winner")), {})


def _evaluated(entry: dict[str, Any]) -> list[str]:
    """The folders of an entry's trainings that met the test split."""
    runs = [mapping(r) for r in entry.get("runs") or []]
    return [str(r.get("label")) for r in runs if entry.get("test") and not r.get("reason")]


def _folder(run_dir: Path, label: str) -> Path:
    """A training's folder. Raises WorkError for a label that leaves the sweep's."""
    if label in ("", ".", "..") or Path(label).name != label:
        raise WorkError(f"{run_dir}/sweep.json names an entry outside its folder: {label!r}")
    return run_dir / "sweep" / label


def _metrics(results: dict[str, Any]) -> list[str]:
    """The metric that picked, and the judge that made the pairs; the first headline judge where there are no pairs."""
    second = results.get("pair_judge") or next(iter(results.get("headline") or []), results.get("select"))
    return list(dict.fromkeys([str(results.get("select")), str(second)]))


def render(run_dir: Path, results: dict[str, Any]) -> str:
    """The page as text."""
    entries, winner, metrics = _entries(results), _winner(results), _metrics(results)
    manifest = read_manifest(run_dir)
    test = mapping(winner.get("test"))
    blocks = {f"{tables.FINDING}{k}": Block.from_dict(mapping(b)) for k, b in mapping(test.get("findings")).items()}
    findings = tables.findings(blocks, wording.count(mapping(test.get("temperature_1")).get("n_studies")))
    found_tables = split_tables(results, entries)
    seeds = [number(s) for s in results.get("seeds") or []]
    return fill(
        "sweep.html.j2",
        name=str(results.get("recipe")),
        answer=_answer(results),
        warnings=_warnings(results),
        is_drawn=is_drawn(manifest),
        level=percent(number(results.get("level")) or 0.9),
        n_pairs="" if count(results.get("n_pairs")) is None else whole(count(results.get("n_pairs"))),
        n_validation=whole(count(results.get("n_validation"))),
        samples=whole(count(results.get("samples"))),
        select=metrics[0],
        select_name=sentence_name(metrics[0]),
        metric_names=[metric_name(m) for m in metrics],
        charts=[(metric_name(m), length_chart(m, results, entries)) for m in metrics],
        baseline=_baseline(results, metrics),
        lines=[_line(e, metrics) for e in entries],
        tests=found_tables,
        every=all(e.get("test") or e.get("reason") for e in entries),
        online=online_charts(results, [(settings_of(e), e) for e in entries]),
        zeros=zero_rows([(settings_of(e), e) for e in entries]),
        seeds=", ".join(f"{s:g}" for s in seeds if s is not None),
        times=times(entries),
        winner=settings_of(winner),
        findings=findings,
        finding_chart=figures.finding_chart(findings),
        version=str(manifest.get("chexalign") or "unknown"),
    )


def _answer(results: dict[str, Any]) -> list[dict[str, str]]:
    """The first sentences: who won, what it gained on the test split, how long its reports are."""
    winner, metrics = _winner(results), _metrics(results)
    select, test = metrics[0], Block.from_dict(mapping(mapping(winner.get("test")).get("temperature_1")))
    n, best, start = (
        len(_entries(results)),
        cell(winner.get("validation"), select),
        cell(results.get("baseline"), select),
    )
    text = (
        f"Of {n} settings, {settings_of(winner)} has the best {sentence_name(select)} on the validation split: "
        f"{score(best.mean)} {wording.interval(best.low, best.high)}; the baseline has {score(start.mean)}."
    )
    answer = [{"symbol": "", "text": text}]
    for metric in dict.fromkeys([*metrics[1:], select, *map(str, results.get("headline") or [])]):
        symbol = SYMBOLS[wording.verdict(cell(test.difference, metric))][0]
        answer.append({"symbol": symbol, "text": wording.headline(metric, test, results.get("level"))})
    known = {k: score(number((test.length or {}).get(k)), "words") for k in ("aligned", "baseline", "reference")}
    lengths = "Its reports have {aligned} words on average, the baseline's {baseline}, the references {reference}."
    return [*answer, {"symbol": "", "text": lengths.format(**known)}]


def _warnings(results: dict[str, Any]) -> list[str]:
    select, entries, warnings = str(results.get("select")), _entries(results), []
    if wording.verdict(cell(_winner(results).get("difference"), select)) != "up":
        warnings.append(
            f"Not even the best setting raised the {sentence_name(select)} measurably on the validation split."
        )
    if failed := [str(e.get("label")) for e in entries if e.get("reason")]:
        warnings.append(f"{len(failed)} of {len(entries)} settings failed while training: {', '.join(failed)}.")
    return [*warnings, *notes(entries)]


def _baseline(results: dict[str, Any], metrics: Sequence[str]) -> tuple[list[Value], str]:
    cells = results.get("baseline")
    return [value(cell(cells, m), m) for m in metrics], score(cell(cells, "words").mean, "words")


def _line(entry: dict[str, Any], metrics: Sequence[str]) -> Line:
    cells, change = entry.get("validation"), cell(entry.get("difference"), metrics[0])
    symbol, meaning = SYMBOLS[wording.verdict(change)]
    relative = number(mapping(entry.get("train")).get("relative"))
    return Line(
        algorithm=algorithm_name(entry),
        settings=settings_of(entry),
        label=str(entry.get("label")),
        picked={"winner": "best of all", "algorithm": f"best {algorithm_name(entry)}"}.get(
            str(entry.get("picked")), ""
        ),
        reason=str(entry.get("reason") or ""),
        scores=tuple(_score(cells, m) for m in metrics),
        difference=value(change, metrics[0], signed=True),
        symbol=symbol,
        meaning=meaning,
        words=score(cell(cells, "words").mean, "words"),
        time="" if relative is None else f"{relative:.2f} ×",
    )


def _score(cells: Any, metric: str) -> Value:
    """The mean with its range over seeds where there are several, else with its interval."""
    shown = value(cell(cells, metric), metric)
    return Value(shown.mean, seed_range(cells, metric) or shown.interval)
