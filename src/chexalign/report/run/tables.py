"""The page's tables: scores per decoding and subset, findings, preference pairs, stages; rows of ready text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chexalign.report.inputs import mapping
from chexalign.report.wording import (
    DASH,
    Cell,
    cell,
    corpus_parts,
    count,
    duration,
    interval,
    metric_name,
    number,
    percent,
    score,
    verdict,
    whole,
)
from chexalign.results import SIDES, Block, Cells, Results

SYMBOLS = {"up": ("▲", "up"), "down": ("▼", "down"), "same": ("○", "no measurable change"), "unknown": ("", "")}
SUBSETS = {  # of results.json, in reading order → title
    "greedy": "All studies, greedy decoding",
    "abnormal": "Abnormal studies only",
    "greedy_abnormal": "Abnormal studies only, greedy decoding",
    "warmup": "What the warm-up has brought: the untuned model (column Baseline), the warmed-up one (column Aligned)",
    "greedy_warmup": "What the warm-up has brought, greedy decoding",
    "shuffled": "Control: with the images of other studies",
}
FINDING, CHEXBERT = "finding/", "chexbert/"


@dataclass(frozen=True)
class Value:
    """A score and its interval as text; `flag` marks a control that does as well as the aligned model."""

    mean: str
    interval: str = ""
    flag: bool = False


@dataclass(frozen=True)
class Row:
    """One line of a score table."""

    code: str
    name: str
    is_headline: bool
    baseline: Value
    aligned: Value
    difference: Value
    relative: str
    symbol: str
    meaning: str
    n: str
    abstained: str
    not_read: str
    controls: tuple[Value, ...]


@dataclass(frozen=True)
class ScoreTable:
    """One score table: a set of studies under one decoding."""

    title: str
    n_studies: str
    length: str
    control_names: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Finding:
    """One finding: F1, precision and recall of both models; `n` studies have it in the reference report."""

    label: str
    n: int | None
    f1: tuple[Cell, Cell]
    row: Row
    precision: tuple[str, str]
    recall: tuple[str, str]


def value(number_cell: Cell, metric: str = "", *, signed: bool = False, flag: bool = False) -> Value:
    """A cell as text; "abstained" where the judge scored nobody."""
    if number_cell.mean is None:
        return Value("abstained" if number_cell.abstained else DASH)
    span = interval(number_cell.low, number_cell.high, metric)
    return Value(score(number_cell.mean, metric, signed=signed), "" if span == DASH else span, flag)


def score_tables(results: Results) -> list[ScoreTable]:
    """The score tables in reading order: all studies first, then each known subset that was measured."""
    template, shuffled = results.controls.template, results.controls.shuffled_images
    first = {"Fixed template": template.scores, "Shuffled images": shuffled.scores if shuffled else {}}
    title = f"All studies, {results.overall.decoding or 'decoding not recorded'}"
    tables = [_score_table(title, results.overall, results, first)]
    for name, text in SUBSETS.items():
        if name in results.subsets:  # the template is one text: no decoding changes it
            fixed = template.abnormal_scores if "abnormal" in name else template.scores
            tables.append(_score_table(text, results.subsets[name], results, {"Fixed template": fixed}))
    return tables


def _score_table(title: str, block: Block, results: Results, controls: Mapping[str, Cells]) -> ScoreTable:
    shown = {name: scores for name, scores in controls.items() if scores}
    ordered = sorted({*block.baseline, *block.aligned}, key=by_importance(results))
    rows = [_row(metric, block, metric in results.headline, list(shown.values())) for metric in ordered]
    return ScoreTable(title, whole(count(block.n_studies)), _length(block.length), tuple(shown), tuple(rows))


def _row(metric: str, block: Block, is_headline: bool, controls: Sequence[Cells], n_studies: int | None = None) -> Row:
    before, after, change = (cell(block.side(side), metric, n_studies) for side in SIDES)
    symbol, meaning = SYMBOLS[verdict(change)]
    return Row(
        code=metric,
        name=metric_name(metric),
        is_headline=is_headline,
        baseline=value(before, metric),
        aligned=value(after, metric),
        difference=value(change, metric, signed=True),
        relative="" if change.relative is None else percent(change.relative, signed=True),
        symbol=symbol,
        meaning=meaning,
        n=whole(change.n if change.n is not None else after.n),
        abstained=_abstained(before, after),
        not_read=not_read(before, after),
        controls=tuple(_control(cell(c, metric), after, metric) for c in controls),
    )


def _control(control: Cell, aligned: Cell, metric: str) -> Value:
    beats = control.mean is not None and aligned.mean is not None and control.mean >= aligned.mean
    return value(control, metric, flag=beats and metric != "words")


def _abstained(before: Cell, after: Cell) -> str:
    """`0`, or both counts with their share of the studies asked."""
    if before.abstained is None and after.abstained is None:
        return DASH
    if not before.abstained and not after.abstained:
        return "0"
    return " / ".join(_share(c) for c in (before, after))


def not_read(before: Cell, after: Cell) -> str:
    """ "12 / 3 sentences; 0 / 1 reports", baseline / aligned; `0` where all was read, a dash where nobody counted."""
    said, counted = [], False
    for what in ("unread", "unreadable"):
        pair = [getattr(c, what) for c in (before, after)]
        counted = counted or any(n is not None for n in pair)
        if any(pair):
            texts = (DASH if n is None else f"{n:.4g}" for n in pair)
            said.append(f"{' / '.join(texts)} {'sentences' if what == 'unread' else 'reports'}")
    return "; ".join(said) or ("0" if counted else DASH)


def _share(number_cell: Cell) -> str:
    asked = (number_cell.n or 0) + (number_cell.abstained or 0)
    if not number_cell.abstained or not asked:
        return whole(number_cell.abstained)
    return f"{number_cell.abstained} ({percent(number_cell.abstained / asked, digits=1)})"


def by_importance(results: Results) -> Callable[[str], tuple[int, int, str]]:
    """A sort key: headline metrics first, then the judges, then corpus F1, then the length."""
    headline = results.headline

    def key(metric: str) -> tuple[int, int, str]:
        if metric in headline:
            return 0, headline.index(metric), ""
        if parts := corpus_parts(metric):
            stem, kind, labels = parts
            return 2, ("13", "14", "5").index(labels) if labels in ("13", "14", "5") else 3, f"{stem} {kind == 'macro'}"
        if metric.startswith(("chexbert_m", "corpus_bleu")):
            return 2, 4, metric
        return 3 if metric == "words" else 1, 0, metric

    return key


@dataclass(frozen=True)
class Gain:
    """What the aligned policy gains over the baseline with the right images and with others', and their difference."""

    name: str
    right: Value
    shuffled: Value
    difference: Value
    symbol: str
    meaning: str


def gain_rows(results: Results) -> list[Gain]:
    """Which part of each judge's gain needs the right image; the part that stays without it is language prior."""
    control, shuffled = results.controls.shuffled_images, results.subsets.get("shuffled", Block())
    needs_image = control.gain if control else {}
    rows = []
    for metric in sorted(needs_image, key=by_importance(results)):
        right_images = cell(results.overall.difference, metric)
        cells = right_images, cell(shuffled.difference, metric), cell(needs_image, metric)
        symbol, meaning = SYMBOLS[verdict(cells[2])]
        right, wrong, part = (value(c, metric, signed=True) for c in cells)
        rows.append(Gain(metric_name(metric), right, wrong, part, symbol, meaning))
    return rows


def constant_rows(constants: Mapping[str, Any]) -> list[dict[str, str]]:
    """The best constant text on all and on abnormal studies, by which judge, and what it earns."""
    rows = []
    for part in ("all", "abnormal"):
        if (found := mapping(constants.get(part))).get("text"):
            names = {"judge": metric_name(str(found.get("judge"))), "text": str(found["text"])}
            rows.append(
                {
                    "studies": part,
                    **names,
                    "score": score(number(found.get("score"))),
                    "n": whole(count(found.get("n"))),
                }
            )
    return rows


def _length(length: Any) -> str:
    known = {name: number(mapping(length).get(name)) for name in ("baseline", "aligned", "reference")}
    return ", ".join(f"{name} {score(mean, 'words')}" for name, mean in known.items() if mean is not None)


def findings(subsets: Mapping[str, Block], n_studies: int | None, prefix: str = FINDING) -> list[Finding]:
    """The findings that were measured, the most frequent in the reference reports first.

    A cell's `n` counts the studies that have the finding; its interval is over all `n_studies`.
    `prefix` names the labeller's subsets: `finding/` the rules', `chexbert/` CheXbert's.
    """
    rows, n = list[Finding](), n_studies
    for name, block in subsets.items():
        if name.startswith(prefix):
            pair = {m: (cell(block.baseline, m, n), cell(block.aligned, m, n)) for m in _PER_FINDING}
            precision, recall = ((score(pair[m][0].mean), score(pair[m][1].mean)) for m in ("precision", "recall"))
            row = _row("f1", block, False, [], n)
            rows.append(Finding(name[len(prefix) :], pair["f1"][1].n, pair["f1"], row, precision, recall))
    return sorted(rows, key=lambda f: (-(f.n or 0), f.label))


_PER_FINDING = ("precision", "recall", "f1")


def pair_rows(pairs: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Mean, median and standard deviation of score and length: (name, chosen, rejected)."""
    rows = []
    for quantity, text in (("score", "Score"), ("words", "Words")):
        for statistic, label in (("mean", "mean"), ("median", "median"), ("sd", "standard deviation")):
            sides = [mapping(mapping(pairs.get(side)).get(quantity)) for side in ("chosen", "rejected")]
            values = [score(number(side.get(statistic)), quantity) for side in sides]
            rows.append((f"{text}, {label}", values[0], values[1]))
    return rows


def stage_rows(manifest: dict[str, Any]) -> list[dict[str, str]]:
    """One row per stage: rows in and out, what was dropped and why, time."""
    rows = []
    for name, stage in mapping(manifest.get("stages")).items():
        facts = mapping(stage)
        dropped = mapping(facts.get("dropped"))
        rows.append(
            {
                "stage": name,
                "rows_in": whole(count(facts.get("rows_in"))),
                "rows_out": whole(count(facts.get("rows_out"))),
                "dropped": "; ".join(f"{whole(count(n))} {reason}" for reason, n in dropped.items()) or "none",
                "extra": "; ".join(f"{key}: {fact}" for key, fact in mapping(facts.get("extra")).items()),
                "seconds": duration(number(facts.get("seconds"))),
                "finished": str(facts.get("finished") or "not finished"),
            }
        )
    return rows
