"""The page's table of what each stage of online training brought: all policies side by side, and each step's own change."""

from __future__ import annotations

from dataclasses import dataclass

from chexalign.report.run.tables import SYMBOLS, Value, by_importance, value
from chexalign.report.wording import cell, corpus_parts, metric_name, verdict
from chexalign.results import Block, Results

DECODINGS = {"": "temperature 1", "greedy_": "greedy decoding"}


@dataclass(frozen=True)
class Change:
    """One stage's aligned minus what it began with, paired."""

    difference: Value
    symbol: str
    meaning: str


@dataclass(frozen=True)
class Row:
    """One metric over all policies, and what each stage changed in it."""

    name: str
    values: tuple[Value, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Table:
    """One decoding: a column per policy in order of training, then a column per step between neighbours."""

    title: str
    policies: tuple[str, ...]
    steps: tuple[str, ...]
    rows: tuple[Row, ...]


def stage_tables(results: Results) -> list[Table]:
    """One table per decoding; none for a run of one stage."""
    subsets, tables = results.subsets, []
    for prefix, decoding in DECODINGS.items():
        names = [n for i in range(1, len(subsets) + 1) if (n := f"{prefix}stage_{i}") in subsets]
        if names:
            after = [f"After stage {i}" for i in range(1, len(names))]
            steps = tuple(f"Stage {i} brought" for i in range(1, len(names) + 1))
            rows = _rows([subsets[n] for n in names], results)
            tables.append(Table(f"Stage by stage, {decoding}", ("Baseline", *after, "Aligned"), steps, rows))
    return tables


def _rows(blocks: list[Block], results: Results) -> tuple[Row, ...]:
    rows = []
    for metric in sorted(blocks[0].difference, key=by_importance(results)):
        if corpus_parts(metric):
            continue
        sides = [blocks[0].baseline, *(b.aligned for b in blocks)]
        values = tuple(value(cell(side, metric), metric) for side in sides)
        changes = []
        for block in blocks:
            change = cell(block.difference, metric)
            changes.append(Change(value(change, metric, signed=True), *SYMBOLS[verdict(change)]))
        rows.append(Row(metric_name(metric), values, tuple(changes)))
    return tuple(rows)
