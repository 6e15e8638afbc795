"""Honest statistics: bootstrap over studies, paired where two policies are compared, abstentions counted.

A cell is `{mean, low, high, n, abstained}`: the value on all studies, a percentile interval over resampled studies, how
many studies gave a score, and how many did not. Values are None where a judge abstained.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Values = Sequence[float | None]
Cell = dict[str, Any]


@functools.lru_cache(maxsize=8)
def resample(n: int, n_boot: int, seed: int) -> np.ndarray:
    """How often each of n studies is drawn in each resample: (n_boot, n) counts, each row summing to n."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_boot) if n else np.zeros((n_boot, 0))


def _cell(point: float | None, draws: np.ndarray, n: int, abstained: int, level: float) -> Cell:
    draws = draws[np.isfinite(draws)]
    if point is None or not np.isfinite(point) or not n or not len(draws):
        point = None if point is None or not np.isfinite(point) or not n else point
        return {"mean": point, "low": None, "high": None, "n": n, "abstained": abstained}
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return {"mean": point, "low": float(low), "high": float(high), "n": n, "abstained": abstained}


def _masked(values: Values) -> tuple[np.ndarray, np.ndarray]:
    known = np.array([v is not None for v in values], dtype=float)
    return np.array([0.0 if v is None else v for v in values], dtype=float), known


def _means(values: np.ndarray, known: np.ndarray, counts: np.ndarray) -> np.ndarray:
    weight = counts @ known
    return np.divide(counts @ (values * known), weight, out=np.full(len(counts), np.nan), where=weight > 0)


def mean_cell(values: Values, n_boot: int, seed: int, level: float) -> Cell:
    """Mean over the studies with a score, bootstrap percentile interval.

    `values` holds one score per study, None where the judge abstained; `level` is the interval's coverage, in (0, 1).

    >>> cell = mean_cell([0.0, 1.0, None, 0.5], n_boot=200, seed=0, level=0.9)
    >>> cell["mean"], cell["n"], cell["abstained"]
    (0.5, 3, 1)
    >>> cell["low"] < 0.5 < cell["high"]
    True
    """
    x, known = _masked(values)
    n = int(known.sum())
    point = float((x * known).sum() / n) if n else None
    return _cell(point, _means(x, known, resample(len(x), n_boot, seed)), n, len(x) - n, level)


def paired_difference(before: Values, after: Values, n_boot: int, seed: int, level: float) -> Cell:
    """Mean of after − before over studies scored on both sides; the resamples are the same for both."""
    return mean_cell(change(before, after), n_boot, seed, level)


def change(before: Values, after: Values) -> list[float | None]:
    """after − before per study; None where either side abstained."""
    if len(before) != len(after):
        raise ValueError(f"{len(before)} values before, {len(after)} after: pair them by study first")
    return [None if a is None or b is None else b - a for a, b in zip(before, after, strict=True)]


# ---- corpus metrics: counts per study and label, pooled inside each resample


def confusion(
    predicted: Sequence[frozenset[str]], actual: Sequence[frozenset[str]], labels: Sequence[str]
) -> np.ndarray:
    """True positives, false positives and false negatives per study and label, (n, 3, n_labels)."""
    p = np.array([[name in s for name in labels] for s in predicted], dtype=float).reshape(len(predicted), len(labels))
    a = np.array([[name in s for name in labels] for s in actual], dtype=float).reshape(len(actual), len(labels))
    return np.stack([p * a, p * (1 - a), (1 - p) * a], axis=1)


def micro_f1(totals: np.ndarray) -> np.ndarray:
    """F1 over pooled counts, (…, 3, L) → (…); 0 where there is nothing to find and nothing found (sklearn, zero_division 0)."""
    tp, fp, fn = (totals[..., i, :].sum(-1) for i in range(3))
    return _ratio(2 * tp, 2 * tp + fp + fn)


def macro_f1(totals: np.ndarray) -> np.ndarray:
    """Mean over labels of their F1, (…, 3, L) → (…); an absent label counts 0."""
    tp, fp, fn = (totals[..., i, :] for i in range(3))
    return _ratio(2 * tp, 2 * tp + fp + fn).mean(-1)


def macro_present(totals: np.ndarray, part: str) -> np.ndarray:
    """Mean `precision`, `recall` or `f1` over the labels that the references have, (…, 3, L) → (…); NaN where they have none.

    A label that was never stated has precision 0, as in sklearn with zero_division 0.
    """
    tp, fp, fn = (totals[..., i, :] for i in range(3))
    shares = {"precision": (tp, tp + fp), "recall": (tp, tp + fn), "f1": (2 * tp, 2 * tp + fp + fn)}
    there = tp + fn > 0
    return _ratio((_ratio(*shares[part]) * there).sum(-1), there.sum(-1).astype(float), empty=np.nan)


def precision(totals: np.ndarray) -> np.ndarray:
    """Share of what was stated that is there; NaN where nothing was stated."""
    tp, fp = totals[..., 0, :].sum(-1), totals[..., 1, :].sum(-1)
    return _ratio(tp, tp + fp, empty=np.nan)


def recall(totals: np.ndarray) -> np.ndarray:
    """Share of what is there that was stated; NaN where nothing is there."""
    tp, fn = totals[..., 0, :].sum(-1), totals[..., 2, :].sum(-1)
    return _ratio(tp, tp + fn, empty=np.nan)


def _ratio(top: np.ndarray, bottom: np.ndarray, empty: float = 0.0) -> np.ndarray:
    return np.divide(top, bottom, out=np.full_like(top, empty, dtype=float), where=bottom > 0)


def corpus_cells(
    counts: Sequence[np.ndarray],
    metric: Callable[[np.ndarray], np.ndarray],
    n_boot: int,
    seed: int,
    level: float,
) -> tuple[Cell, Cell, Cell]:
    """Cells of a corpus metric for two policies (before, after) and their paired difference; counts are (n, 3, L) each.

    Several after: one policy per seed, whose metrics are averaged, in every resample too.
    """
    n = len(counts[0])
    weights = resample(n, n_boot, seed)
    drawn = [metric(np.tensordot(weights, x, axes=1)) for x in counts]
    found = [float(metric(x.sum(0))) for x in counts]
    draws, points = [drawn[0], np.mean(drawn[1:], axis=0)], [found[0], float(np.mean(found[1:]))]
    return (
        _cell(points[0], draws[0], n, 0, level),
        _cell(points[1], draws[1], n, 0, level),
        _cell(points[1] - points[0], draws[1] - draws[0], n, 0, level),
    )
