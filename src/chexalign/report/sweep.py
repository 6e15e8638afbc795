"""Writes `sweep.html`: what a sweep picked and what it gained, Figure 3, every entry, and the time each algorithm took."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chexalign.errors import WorkError
from chexalign.report import figures, tables, wording
from chexalign.report.inputs import mapping, read_json, read_manifest, read_results
from chexalign.report.page import fill, put, write_page
from chexalign.report.sweep_chart import LOOKS, length_chart
from chexalign.report.tables import SYMBOLS, Value, value
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
    """Write `run_dir/sweep.html` in one step and return its path; each picked entry gets its own page.

    Raises WorkError where there is no sweep.
    """
    found = _read(run_dir)
    for entry in _entries(found):
        if entry.get("picked"):
            write_page(_folder(run_dir, entry))
    return put(run_dir / "sweep.html", render(run_dir, found))


def summary(run_dir: Path) -> list[str]:
    """The answer and the warnings as lines for the terminal."""
    found = _read(run_dir)
    answer = [" ".join(filter(None, (line["symbol"], line["text"]))) for line in _answer(found)]
    return [line.replace(NARROW, " ") for line in (*answer, *(f"Warning: {w}" for w in _warnings(found)))]


def _read(run_dir: Path) -> dict[str, Any]:
    found = read_json(run_dir / "sweep.json", dict)
    if found is None:
        raise WorkError(f"{run_dir} has no sweep.json: run `chexalign sweep` first")
    return found


def _entries(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [mapping(entry) for entry in found.get("entries") or []]


def _winner(found: dict[str, Any]) -> dict[str, Any]:
    return next((e for e in _entries(found) if e.get("label") == found.get("winner")), {})


def _folder(run_dir: Path, entry: dict[str, Any]) -> Path:
    """The entry's folder. Raises WorkError for a label that leaves the sweep's."""
    label = str(entry.get("label"))
    if label in ("", ".", "..") or Path(label).name != label:
        raise WorkError(f"{run_dir}/sweep.json names an entry outside its folder: {label!r}")
    return run_dir / "sweep" / label


def _metrics(found: dict[str, Any]) -> list[str]:
    """The metric that picked, and the judge that made the pairs."""
    return list(dict.fromkeys([str(found.get("select")), str(found.get("pair_judge"))]))


def render(run_dir: Path, found: dict[str, Any]) -> str:
    """The page as text."""
    entries, winner, metrics = _entries(found), _winner(found), _metrics(found)
    manifest = read_manifest(run_dir)
    findings = tables.findings(read_results(_folder(run_dir, winner)))
    return fill(
        "sweep.html.j2",
        name=str(found.get("recipe")),
        answer=_answer(found),
        warnings=_warnings(found),
        is_phantom=mapping(mapping(manifest.get("recipe")).get("studies")).get("source") == "phantom",
        level=percent(number(found.get("level")) or 0.9),
        n_pairs=whole(count(found.get("n_pairs"))),
        n_validation=whole(count(found.get("n_validation"))),
        samples=whole(count(found.get("samples"))),
        select=metrics[0],
        select_name=sentence_name(metrics[0]),
        metric_names=[metric_name(m) for m in metrics],
        charts=[(metric_name(m), length_chart(m, found, entries)) for m in metrics],
        baseline=_baseline(found, metrics),
        lines=[_line(e, metrics) for e in entries],
        tests=_tests(found, entries, metrics),
        times=_times(entries),
        winner=_settings(winner),
        findings=findings,
        finding_chart=figures.finding_chart(findings),
        version=str(manifest.get("chexalign") or "unknown"),
    )


def _name(entry: dict[str, Any]) -> str:
    return LOOKS.get(str(entry.get("algorithm")), (str(entry.get("algorithm")), "", "", None))[0]


def _settings(entry: dict[str, Any]) -> str:
    """`DPO, beta 0.1, lr 0.0002`, as the recipe's row says it."""
    given = {k: v for k, v in mapping(entry.get("given")).items() if k != "algorithm"}
    return ", ".join([_name(entry), *(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in given.items())])


def _answer(found: dict[str, Any]) -> list[dict[str, str]]:
    """The first sentences: who won, what it gained on the test split, how long its reports are."""
    winner, metrics = _winner(found), _metrics(found)
    select, test = metrics[0], mapping(mapping(winner.get("test")).get("temperature_1"))
    n, best, start = len(_entries(found)), cell(winner.get("validation"), select), cell(found.get("baseline"), select)
    text = (
        f"Of {n} settings, {_settings(winner)} has the best {sentence_name(select)} on the validation split: "
        f"{score(best.mean)} {wording.interval(best.low, best.high)}; the baseline has {score(start.mean)}."
    )
    answer = [{"symbol": "", "text": text}]
    for metric in dict.fromkeys([*metrics[1:], select, *map(str, found.get("headline") or [])]):
        symbol = SYMBOLS[wording.verdict(cell(test.get("difference"), metric))][0]
        answer.append({"symbol": symbol, "text": wording.headline(metric, {**test, "level": found.get("level")})})
    known = {
        k: score(number(mapping(test.get("length")).get(k)), "words") for k in ("aligned", "baseline", "reference")
    }
    lengths = "Its reports have {aligned} words on average, the baseline's {baseline}, the references {reference}."
    return [*answer, {"symbol": "", "text": lengths.format(**known)}]


def _warnings(found: dict[str, Any]) -> list[str]:
    select, entries, warnings = str(found.get("select")), _entries(found), []
    if wording.verdict(cell(_winner(found).get("difference"), select)) != "up":
        warnings.append(
            f"Not even the best setting raised the {sentence_name(select)} measurably on the validation split."
        )
    if failed := [str(e.get("label")) for e in entries if e.get("reason")]:
        warnings.append(f"{len(failed)} of {len(entries)} settings failed while training: {', '.join(failed)}.")
    return warnings


def _baseline(found: dict[str, Any], metrics: Sequence[str]) -> tuple[list[Value], str]:
    cells = found.get("baseline")
    return [value(cell(cells, m), m) for m in metrics], score(cell(cells, "words").mean, "words")


def _line(entry: dict[str, Any], metrics: Sequence[str]) -> Line:
    cells, change = entry.get("validation"), cell(entry.get("difference"), metrics[0])
    symbol, meaning = SYMBOLS[wording.verdict(change)]
    relative = number(mapping(entry.get("train")).get("relative"))
    return Line(
        algorithm=_name(entry),
        settings=_settings(entry),
        label=str(entry.get("label")),
        picked={"winner": "best of all", "algorithm": f"best {_name(entry)}"}.get(str(entry.get("picked")), ""),
        reason=str(entry.get("reason") or ""),
        scores=tuple(value(cell(cells, m), m) for m in metrics),
        difference=value(change, metrics[0], signed=True),
        symbol=symbol,
        meaning=meaning,
        words=score(cell(cells, "words").mean, "words"),
        time="" if relative is None else f"{relative:.2f} ×",
    )


def _tests(found: dict[str, Any], entries: Sequence[dict[str, Any]], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """One block per decoding: the picked entries' differences on the test split."""
    wanted = list(dict.fromkeys([*reversed(metrics), *map(str, found.get("headline") or [])]))
    blocks = []
    for decoding, title in (("temperature_1", "Temperature 1"), ("greedy", "Greedy decoding")):
        rows = []
        for entry in entries:
            if not (block := mapping(mapping(entry.get("test")).get(decoding))):
                continue
            changes = [cell(block.get("difference"), m) for m in wanted]
            shown = [
                (value(c, m, signed=True), *SYMBOLS[wording.verdict(c)]) for c, m in zip(changes, wanted, strict=True)
            ]
            words = score(cell(block.get("aligned"), "words").mean, "words")
            line = {"settings": _settings(entry), "label": entry.get("label"), "changes": shown, "words": words}
            rows.append({**line, "is_winner": entry.get("picked") == "winner"})
            n, start = block.get("n_studies"), [value(cell(block.get("baseline"), m), m) for m in wanted]
            before = score(cell(block.get("baseline"), "words").mean, "words")
        if rows:
            names = [metric_name(m) for m in wanted]
            blocks.append(
                {"title": title, "n": whole(count(n)), "names": names, "rows": rows, "start": start, "words": before}
            )
    return blocks


def _times(entries: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Time of an epoch per algorithm: the median over its entries, and the paper's figure."""
    rows = []
    for algorithm in dict.fromkeys(str(e.get("algorithm")) for e in entries):
        trained = [mapping(e.get("train")) for e in entries if e.get("algorithm") == algorithm]
        found = {
            k: [v for t in trained if (v := number(t.get(k))) is not None] for k in ("seconds_per_epoch", "relative")
        }
        if found["seconds_per_epoch"]:
            ours = statistics.median(found["relative"]) if found["relative"] else None
            paper = LOOKS.get(algorithm, (algorithm, "", "", None))[3]
            seconds = wording.duration(statistics.median(found["seconds_per_epoch"]))
            times = {"ours": "" if ours is None else f"{ours:.2f}", "paper": "" if paper is None else f"{paper:.1f}"}
            rows.append({"name": _name({"algorithm": algorithm}), "n": str(len(trained)), "seconds": seconds, **times})
    return rows
