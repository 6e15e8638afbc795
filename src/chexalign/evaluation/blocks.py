"""results.json: blocks of cells for baseline, aligned and their paired difference, on all studies and on subsets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chexalign import stats
from chexalign.corpus import CHEXBERT, LABELS, PARTS, RULES, all_metrics, paired_cells
from chexalign.evaluation.answers import SEED, Answers
from chexalign.evaluation.counting import counts_of
from chexalign.evaluation.unread import totals
from chexalign.recipe.recipe import Evaluate
from chexalign.results import SIDES, Block


def mean_over(runs: Sequence[stats.Values]) -> list[float | None]:
    """Per study the mean over the runs that scored it."""
    known = [[v for v in values if v is not None] for values in zip(*runs, strict=True)]
    return [sum(values) / len(values) if values else None for values in known]


def block(
    before: Answers,
    after: Answers | Sequence[Answers],
    references: Sequence[str],
    keep: Sequence[int],
    decoding: str,
    settings: Evaluate,
) -> Block:
    """The cells of one subset (`keep` holds indices of studies). Several `after`, one per seed, are averaged by study."""
    afters = [after] if isinstance(after, Answers) else list(after)
    cells: dict[str, dict[str, stats.Cell]] = {side: {} for side in SIDES}
    boot = (settings.bootstrap, SEED, settings.level)
    series = {name: (before.scores[name], mean_over([x.scores[name] for x in afters])) for name in before.scores}
    series["words"] = (before.words(), mean_over([x.words() for x in afters]))
    for name, (a, b) in series.items():
        a, b = [a[i] for i in keep], [b[i] for i in keep]
        cells["baseline"][name] = stats.mean_cell(a, *boot)
        cells["aligned"][name] = stats.mean_cell(b, *boot)
        cells["difference"][name] = stats.paired_difference(a, b, *boot)
    for side, runs in (("baseline", [before]), ("aligned", afters)):
        for name in runs[0].unread:
            cells[side][name] |= totals([x.unread[name] for x in runs], keep)
    counts = [counts_of(x, references) for x in (before, *afters)]
    for name, three in paired_cells(counts[0], counts[1:], keep, boot).items():
        _put(cells, name, three)
    baseline, aligned, difference = (cells[side] for side in SIDES)
    for name, cell in difference.items():
        start = baseline[name]["mean"]
        cell["relative"] = cell["mean"] / start if start and cell["mean"] is not None else None
    length = {
        "baseline": baseline["words"]["mean"],
        "aligned": aligned["words"]["mean"],
        "reference": float(np.mean([len(references[i].split()) for i in keep])) if len(keep) else None,
    }
    return Block(baseline, aligned, difference, length, n_studies=len(keep), decoding=decoding)


def seed_values(runs: Sequence[Answers], references: Sequence[str]) -> dict[str, list[float | None]]:
    """Metric → its value in each run, on all studies."""
    seeds: dict[str, list[float | None]] = {}
    for run in runs:
        for name, values in {**run.scores, "words": run.words()}.items():
            known = [v for v in values if v is not None]
            seeds.setdefault(name, []).append(sum(known) / len(known) if known else None)
        counts = counts_of(run, references)
        for name, (family, metric) in all_metrics(tuple(counts)).items():
            value = float(metric(counts[family].sum(0)))
            seeds.setdefault(name, []).append(value if np.isfinite(value) else None)
    return seeds


def _put(cells: dict[str, dict[str, stats.Cell]], name: str, three: tuple[stats.Cell, stats.Cell, stats.Cell]) -> None:
    for side, cell in zip(SIDES, three, strict=True):
        cells[side][name] = cell


def finding_blocks(
    before: Answers,
    after: Answers | Sequence[Answers],
    references: Sequence[str],
    decoding: str,
    settings: Evaluate,
) -> dict[str, Block]:
    """Precision, recall and F1 of every label that a report or a reference has; n counts reference positives.

    `finding/…` holds the 13 findings as the rules read them, `chexbert/…` the 14 labels of CheXbert where it was asked.
    """
    afters = [after] if isinstance(after, Answers) else list(after)
    counts = [counts_of(x, references) for x in (before, *afters)]
    families = [(RULES, "finding", LABELS[:-1]), *([(CHEXBERT, "chexbert", LABELS)] if CHEXBERT in counts[0] else [])]
    blocks = {}
    for family, prefix, labels in families:
        for label in labels:
            rows = [c[family][..., [LABELS.index(label)]] for c in counts]
            if not sum(x.sum() for x in rows):
                continue
            blocks[f"{prefix}/{label}"] = _label_block(rows, decoding, settings)
    return blocks


def _label_block(counts: Sequence[np.ndarray], decoding: str, settings: Evaluate) -> Block:
    """The block of one label from its counts, (n, 3, 1) for each policy."""
    support = int(counts[0][:, (0, 2)].sum())
    cells: dict[str, dict[str, stats.Cell]] = {side: {} for side in SIDES}
    for name, metric in PARTS.items():
        _put(cells, name, stats.corpus_cells(counts, metric, settings.bootstrap, SEED, settings.level))
    baseline, aligned, difference = (cells[side] for side in SIDES)
    for cell in (*baseline.values(), *aligned.values(), *difference.values()):
        cell["n"] = support
    return Block(baseline, aligned, difference, n_studies=support, decoding=decoding)
