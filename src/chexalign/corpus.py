"""Metrics of a whole corpus from counts per study: label F1 as the papers count it, and BLEU as the papers count it.

A family is one way of counting: "chexpert_rule" and "chexbert" count labels, (n, 3, 14) true positives, false positives and
false negatives in the order of LABELS; "corpus_bleu" counts words and n-grams, (n, 10). A metric is a pure function of the
counts summed over studies, so that a bootstrap over studies sums inside each resample.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from chexalign import stats
from chexalign.records import LABEL_SETS, LABELS

Value = Callable[[np.ndarray], np.ndarray]

ORDER = 4  # of corpus BLEU
RULES = "chexpert_rule"
CHEXBERT = "chexbert"
BLEU = "corpus_bleu"
FAMILIES = (RULES, CHEXBERT, BLEU)
PARTS = {"precision": stats.precision, "recall": stats.recall, "f1": stats.micro_f1}


def label_counts(reports: Sequence[frozenset[str]], references: Sequence[frozenset[str]]) -> np.ndarray:
    """Counts of positive labels, (n, 3, 14), from the label sets of n reports and of their references."""
    return stats.confusion(reports, references, LABELS)


def metrics_of(family: str) -> dict[str, Value]:
    """Name of a metric → its value from summed counts. Raises KeyError for an unknown family."""
    return {RULES: _rule_metrics, CHEXBERT: _chexbert_metrics, BLEU: _bleu_metrics}[family]()


def all_metrics(families: Sequence[str]) -> dict[str, tuple[str, Value]]:
    """Name of a metric → its family and its value, over several families."""
    return {name: (family, value) for family in families for name, value in metrics_of(family).items()}


def _rule_metrics() -> dict[str, Value]:
    sized = {
        f"{RULES}_{kind}{size}": _over(value, labels)
        for kind, value in (("micro", stats.micro_f1), ("macro", stats.macro_f1))
        for size, labels in LABEL_SETS.items()
    }
    present = {
        f"{RULES}_macro_{part}": _over(functools.partial(stats.macro_present, part=part), LABEL_SETS["13"])
        for part in ("precision", "recall", "f1")
    }
    return {**sized, **present}


def _chexbert_metrics() -> dict[str, Value]:
    """The four F1 of CheXalign's tables and their mean; precision and recall over the 14 labels (sklearn, zero_division 0)."""
    four = {
        f"{CHEXBERT}_{kind}_{size}": _over(value, LABEL_SETS[size])
        for kind, value in (("micro", stats.micro_f1), ("macro", stats.macro_f1))
        for size in ("14", "5")
    }
    parts = {
        f"{CHEXBERT}_{kind}_{part}_14": functools.partial(_share, part=part, macro=kind == "macro")
        for kind in ("micro", "macro")
        for part in ("precision", "recall")
    }
    return {**four, f"{CHEXBERT}_mean": functools.partial(_mean_of, tuple(four.values())), **parts}


def _bleu_metrics() -> dict[str, Value]:
    return {f"{BLEU}{order}": functools.partial(bleu, order=order) for order in range(1, ORDER + 1)}


def _over(value: Value, labels: Sequence[str]) -> Value:
    columns = [LABELS.index(label) for label in labels]
    return lambda totals: value(totals[..., columns])


def _mean_of(values: Sequence[Value], totals: np.ndarray) -> np.ndarray:
    return np.mean([value(totals) for value in values], axis=0)


def _share(totals: np.ndarray, part: str, macro: bool) -> np.ndarray:
    """Precision or recall, (…, 3, L) → (…): of pooled counts, or the mean over labels; 0 where nothing can be counted."""
    hits, misses = totals[..., 0, :], totals[..., 1 if part == "precision" else 2, :]
    if not macro:
        hits, misses = hits.sum(-1, keepdims=True), misses.sum(-1, keepdims=True)
    asked = hits + misses
    return np.divide(hits, asked, out=np.zeros_like(hits, dtype=float), where=asked > 0).mean(-1)


def label_metric(label: str, part: str) -> Value:
    """`precision`, `recall` or `f1` of one label, (…, 3, 14) → (…)."""
    return _over(PARTS[part], [label])


def bleu(totals: np.ndarray, order: int = ORDER) -> np.ndarray:
    """Corpus BLEU in the COCO captioning form from summed counts, (…, 10) → (…).

    The counts are words, reference words, then (matches, n-grams) for n = 1 … 4. p_n = (matches + 1e-15) / (n-grams + 1e-9);
    the geometric mean of the first `order`; times exp(1 - 1/ratio) where the length ratio is below 1.
    """
    tiny, small = 1e-15, 1e-9
    precisions = (totals[..., 2 : 2 + 2 * order : 2] + tiny) / (totals[..., 3 : 3 + 2 * order : 2] + small)
    ratio = (totals[..., 0] + tiny) / (totals[..., 1] + small)
    brevity = np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1.0)
    return np.exp(np.log(precisions).mean(-1)) * brevity


def paired_cells(
    before: Mapping[str, np.ndarray], after: Sequence[Mapping[str, np.ndarray]], keep: Sequence[int], boot: tuple
) -> dict[str, tuple[stats.Cell, stats.Cell, stats.Cell]]:
    """Name of a metric → cells of two policies and of their paired difference, over the studies in `keep`.

    `before` and each of `after` (one per seed) hold counts per study by family; families that not all of them have are left
    out. `boot` is (resamples, seed, level).
    """
    sides = (before, *after)
    families = [f for f in FAMILIES if all(f in side for side in sides)]
    rows = list(keep)
    return {
        name: stats.corpus_cells([side[family][rows] for side in sides], value, *boot)
        for name, (family, value) in all_metrics(families).items()
    }


def read_row(row: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Family → counts of one study, as per_study.jsonl has them: label names by tp, fp and fn, or BLEU's ten numbers."""
    found = {}
    for family, value in row.items():
        if family == BLEU and isinstance(value, list):
            found[family] = np.array(value, dtype=float)
        elif family in FAMILIES and isinstance(value, Mapping):
            named = [set(value.get(kind, ())) for kind in ("tp", "fp", "fn")]
            found[family] = np.array([[label in names for label in LABELS] for names in named], dtype=float)
    return found
