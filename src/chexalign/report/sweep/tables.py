"""The tables of a sweep: scores of every evaluated setting, their differences to the baseline, times; page and Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chexalign.report import wording
from chexalign.report.inputs import mapping
from chexalign.report.run.tables import SYMBOLS, Value, value
from chexalign.report.sweep.chart import LOOKS
from chexalign.report.wording import cell, count, metric_name, number, score, whole

Entry = dict[str, Any]
DECODINGS = (
    ("temperature_1", "Temperature 1"),
    ("greedy", "Greedy decoding"),
    ("shuffled", "Control: temperature 1 with the images of other studies"),
)
MACRO = tuple(
    f"chexpert_rule_macro_{part}" for part in ("precision", "recall", "f1")
)  # precision beside recall, always


def algorithm_name(entry: Entry) -> str:
    """As papers write it ("LC-DPO"); an algorithm without an entry in LOOKS keeps the recipe's word."""
    return LOOKS.get(str(entry.get("algorithm")), (str(entry.get("algorithm")), "", "", None))[0]


def settings_of(entry: Entry) -> str:
    """The row's name, or `DPO, beta 0.1, lr 0.0002` as the recipe's row says it."""
    if entry.get("name"):
        return str(entry["name"])
    given = {k: v for k, v in mapping(entry.get("given")).items() if k != "algorithm"}
    return ", ".join([algorithm_name(entry), *(f"{k} {in_words(v)}" for k, v in given.items())])


def in_words(setting: Any) -> str:
    """A setting's value as a reader sees it: "key value" pairs for a section, numbers in their shortest form."""
    if isinstance(setting, dict):
        return " ".join(f"{k} {in_words(v)}" for k, v in setting.items())
    return f"{setting:g}" if isinstance(setting, float) else str(setting)


def seeds_of(entry: Entry) -> tuple[int, int]:
    """How many of an entry's trainings did not fail, and how many there are."""
    runs = [mapping(r) for r in entry.get("runs") or []]
    return sum(not r.get("reason") for r in runs), len(runs)


def seed_range(cells: Any, metric: str) -> str:
    """`.551 to .570`, the lowest and the highest seed; empty where there are none."""
    seeds = [v for s in mapping(mapping(cells).get(metric)).get("seeds") or [] if (v := number(s)) is not None]
    return f"{score(min(seeds), metric)} to {score(max(seeds), metric)}" if len(seeds) > 1 else ""


@dataclass(frozen=True)
class Line:
    """One setting in a table of the test split: scores (mean, and range over seeds or interval), then differences."""

    settings: str
    label: str
    is_winner: bool
    scores: tuple[Value, ...]
    changes: tuple[tuple[Value, str, str], ...]  # value, symbol, meaning


@dataclass(frozen=True)
class Table:
    """One decoding on the test split."""

    title: str
    n: str
    names: tuple[str, ...]
    baseline: tuple[Value, ...]
    lines: tuple[Line, ...]


def split_tables(results: dict[str, Any], entries: Sequence[Entry]) -> list[Table]:
    """One table per decoding: macro precision, recall and F1 of the findings, every judge, and the length."""
    tables = []
    for decoding, title in DECODINGS:
        blocks = [(e, block) for e in entries if (block := mapping(mapping(e.get("test")).get(decoding)))]
        if blocks:
            metrics = _columns(results, mapping(blocks[0][1].get("baseline")))
            lines = tuple(_line(entry, block, metrics) for entry, block in blocks)
            before = tuple(value(cell(blocks[0][1].get("baseline"), m), m) for m in metrics)
            n = whole(count(blocks[0][1].get("n_studies")))
            tables.append(Table(title, n, tuple(column_name(m) for m in metrics), before, lines))
    return tables


def _columns(results: dict[str, Any], measured: dict[str, Any]) -> list[str]:
    """The columns in reading order: what picked, the headline, macro precision, recall and F1, the other judges, length."""
    shown = [results.get("select"), results.get("pair_judge"), *(results.get("headline") or []), *MACRO]
    wanted = [*shown, *(results.get("judges") or []), "words"]
    return [m for m in dict.fromkeys(map(str, wanted)) if m in measured]


def column_name(metric: str) -> str:
    """A metric's name for the head of a narrow column: "CheXpert-rule macro" becomes "Macro"."""
    return metric_name(metric).replace("CheXpert-rule macro", "Macro") if metric in MACRO else metric_name(metric)


def _line(entry: Entry, block: dict[str, Any], metrics: Sequence[str]) -> Line:
    after, change = block.get("aligned"), block.get("difference")
    scores = []
    for metric in metrics:
        shown = value(cell(after, metric), metric)
        scores.append(Value(shown.mean, seed_range(after, metric) or shown.interval))
    changes = [cell(change, m) for m in metrics]
    told = [(value(c, m, signed=True), *SYMBOLS[wording.verdict(c)]) for c, m in zip(changes, metrics, strict=True)]
    winner = entry.get("picked") == "winner"
    return Line(settings_of(entry) + _short(entry), page_of(entry), winner, tuple(scores), tuple(told))


def _short(entry: Entry) -> str:
    """Says that seeds are missing from a row."""
    good, asked = seeds_of(entry)
    return f" ({good} of {asked} seeds)" if good < asked else ""


def notes(entries: Sequence[Entry]) -> list[str]:
    """What a reader of the tables must know about single rows: seeds that failed, trainings that ended where they began."""
    lines = []
    for entry in entries:
        good, asked = seeds_of(entry)
        if 0 < good < asked:
            lines.append(
                f"{settings_of(entry)}: only {good} of {asked} seeds could be trained; it was not picked from."
            )
        watch = mapping(mapping(entry.get("settings")).get("watch")).get("judge")
        kept = [_kept(mapping(r)) for r in entry.get("runs") or []]
        verdict = f"was better than the start by {watch} on the validation studies, so"
        row = f"{settings_of(entry)}: in"
        if still := sum(bool(k) and not any(k) for k in kept):
            what = "the baseline's weights were kept: they differ from it in nothing"
            lines.append(f"{row} {still} of {asked} trainings no round {verdict} {what}.")
        for stage in range(1, max(map(len, kept), default=0)):
            if still := sum(any(k) and k[stage] == 0 for k in kept if len(k) > stage):
                what = "that stage changed nothing"
                lines.append(f"{row} {still} of {asked} trainings no round of stage {stage + 1} {verdict} {what}.")
    return lines


def _kept(run: dict[str, Any]) -> list[int]:
    """The round whose weights each stage of online training kept; 0: those that it started from."""
    return [count(mapping(s).get("best_round")) or 0 for s in run.get("stages") or []]


def page_of(entry: Entry) -> str:
    """The folder of the first training that did not fail."""
    runs = [mapping(r) for r in entry.get("runs") or []]
    return next((str(r.get("label")) for r in runs if not r.get("reason")), str(entry.get("label")))


def markdown(results: dict[str, Any], entries: Sequence[Entry]) -> str:
    """The tables of the test split as Markdown: scores, then differences to the baseline with their intervals."""
    level, seeds = wording.percent(number(results.get("level")) or 0.9), results.get("seeds") or []
    small = f"mean of {len(seeds)} seeds (lowest to highest)" if len(seeds) > 1 else f"mean [{level} interval]"
    parts = []
    for table in split_tables(results, entries):
        scores = [["Baseline", *(v.mean for v in table.baseline)]]
        scores += [[x.settings, *(_with(v, len(seeds) > 1) for v in x.scores)] for x in table.lines]
        changes = [[x.settings, *(f"{s} {_with(v, False)}".strip() for v, s, _ in x.changes)] for x in table.lines]
        parts.append(f"{table.title}, {table.n} test studies: {small}\n\n{_grid(['Setting', *table.names], scores)}")
        parts.append(
            f"{table.title}, difference to the baseline [paired {level} interval over studies]\n\n"
            f"{_grid(['Setting', *table.names], changes)}"
        )
    parts += [f"Note: {note}" for note in notes(entries)] if parts else []
    return "\n\n".join(parts).replace(wording.NARROW, " ") + "\n" if parts else ""


def _with(shown: Value, seeds: bool) -> str:
    if not shown.interval:
        return shown.mean
    return f"{shown.mean} ({shown.interval})" if seeds else f"{shown.mean} {shown.interval}"


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in line) + " |" for line in lines)


def times(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """Time of an epoch, or of an online round, per algorithm: the median over its entries; and the paper's figure."""
    rows = []
    for algorithm in dict.fromkeys(str(e.get("algorithm")) for e in entries):
        trained = [mapping(e.get("train")) for e in entries if e.get("algorithm") == algorithm]
        keys = ("seconds_per_epoch", "seconds_per_round", "relative")
        values = {k: [v for t in trained if (v := number(t.get(k))) is not None] for k in keys}
        seconds = values["seconds_per_epoch"] or values["seconds_per_round"]
        if seconds:
            ours = f"{statistics.median(values['relative']):.2f}" if values["relative"] else ""
            paper = LOOKS.get(algorithm, (algorithm, "", "", None))[3]
            spent = wording.duration(statistics.median(seconds))
            what = "epoch" if values["seconds_per_epoch"] else "round"
            name = algorithm_name({"algorithm": algorithm})
            cells = {"ours": ours, "paper": "" if paper is None else f"{paper:.1f}"}
            rows.append({"name": name, "n": str(len(trained)), "seconds": spent, "what": what, **cells})
    return rows
