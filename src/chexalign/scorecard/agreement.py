"""How far a judge agrees with radiologists who rated reports: rank correlation, preference within a case, ranking tests.

Intervals are percentile bootstraps over cases (all reports of one reference are drawn together). Every judge is measured
on the same resamples, so that two judges can be compared. Abstentions are left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chexalign.judges.contract import Judge

RESAMPLES = 1000
SEED = 0
LEVEL = 0.9
SAME = 0.01  # of two scores that a ranking test wants equal # our choice


@dataclass(frozen=True)
class Rated:
    """One report that people rated. Higher ratings are better; errors are counts."""

    case: str
    source: str  # who wrote the report
    reference: str
    report: str
    rating: float
    significant_errors: float | None = None
    raters: tuple[float, ...] = ()


def ranks(values: np.ndarray) -> np.ndarray:
    """(n,) → ranks from 1, ties sharing their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """(n,), (n,) → rank correlation; NaN where one side is constant."""
    x, y = (r - r.mean() for r in (ranks(a), ranks(b)))
    scale = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / scale if scale else float("nan")


def draws(cases: Sequence[str], n: int = RESAMPLES) -> list[np.ndarray]:
    """Indices of the rows in each of n resamples of the cases, drawn with replacement."""
    names = sorted(set(cases))
    rows = {name: np.array([i for i, c in enumerate(cases) if c == name]) for name in names}
    rng = np.random.default_rng(SEED)
    return [np.concatenate([rows[names[k]] for k in rng.integers(0, len(names), len(names))]) for _ in range(n)]


def cell(values: Callable[[np.ndarray], float], n: int, resamples: Sequence[np.ndarray]) -> dict[str, Any]:
    """{mean, low, high, n} of a statistic of row indices; None where it is not defined."""
    point = float(values(np.arange(n)))
    again = np.array([values(rows) for rows in resamples], dtype=float)
    again = again[np.isfinite(again)]
    low, high = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(again) else (np.nan, np.nan)
    numbers = {"mean": point, "low": float(low), "high": float(high)}
    return {**{k: v if np.isfinite(v) else None for k, v in numbers.items()}, "n": n}


def agreement(scores: Sequence[float | None], rated: Sequence[Rated]) -> dict[str, Any]:
    """Rank correlation with rating and with fewer significant errors, by source, and preference within cases."""
    kept = [(s, r) for s, r in zip(scores, rated, strict=True) if s is not None]
    out: dict[str, Any] = {"n": len(kept), "abstained": len(rated) - len(kept), "by_source": {}}
    if len(kept) < 3:
        return out
    out["rating"] = _correlation(kept, lambda r: r.rating)
    if counted := [(s, r) for s, r in kept if r.significant_errors is not None]:
        out["significant_errors"] = _correlation(counted, lambda r: -(r.significant_errors or 0.0))
    for source in sorted({r.source for _, r in kept}):
        own = [(s, r) for s, r in kept if r.source == source]
        out["by_source"][source] = _correlation(own, lambda r: r.rating)
    return {**out, "preference": preference(kept)}


def _correlation(kept: Sequence[tuple[float, Rated]], target: Callable[[Rated], float]) -> dict[str, Any]:
    x, y = np.array([s for s, _ in kept]), np.array([target(r) for _, r in kept])
    return cell(lambda rows: spearman(x[rows], y[rows]), len(x), draws([r.case for _, r in kept]))


def preference(kept: Sequence[tuple[float, Rated]]) -> dict[str, Any]:
    """Of two reports on one case that people rated apart, how often the judge prefers the same one; a tie is half."""
    rows, cases = [], []
    for i, (a, one) in enumerate(kept):
        for b, other in kept[i + 1 :]:
            if one.case == other.case and one.rating != other.rating:
                same = np.sign(a - b) * np.sign(one.rating - other.rating)
                rows.append((same + 1) / 2)
                cases.append(one.case)
    values = np.array(rows)
    return cell(lambda at: float(values[at].mean()), len(values), draws(cases)) if rows else {"mean": None, "n": 0}


def raters(rated: Sequence[Rated]) -> dict[str, Any] | None:
    """What a radiologist reaches: each rater against the mean of the others, the mean of those correlations."""
    rows = [r for r in rated if len(r.raters) > 1]
    if len(rows) < 3 or len({len(r.raters) for r in rows}) != 1:
        return None
    marks = np.array([r.raters for r in rows])

    def mean(at: np.ndarray) -> float:
        own = marks[at]
        each = [spearman(own[:, k], np.delete(own, k, axis=1).mean(1)) for k in range(own.shape[1])]
        return float(np.mean(each))

    return cell(mean, len(rows), draws([r.case for r in rows], 200))


def paired_difference(best: Sequence[float | None], other: Sequence[float | None], rated: Sequence[Rated]) -> Any:
    """Correlation with the rating of `best` minus that of `other`, on the rows both scored."""
    kept = [(a, b, r) for a, b, r in zip(best, other, rated, strict=True) if a is not None and b is not None]
    if len(kept) < 3:
        return None
    a, b, y = (np.array(column, dtype=float) for column in zip(*((p, q, r.rating) for p, q, r in kept), strict=True))
    return cell(
        lambda at: spearman(a[at], y[at]) - spearman(b[at], y[at]), len(kept), draws([r.case for *_, r in kept])
    )


def ranking_tests(judge: Judge, tests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hand-written cases {category, id, ground_truth, candidates, expected_ranking "C1 > C2" or "C1 = C2"} and who passes."""
    rows = []
    for test in tests:
        names = list(test["candidates"])
        texts = [test["candidates"][name]["text"] for name in names]
        answers = judge.score(texts, [test["ground_truth"]] * len(texts))
        scores = {name: a.score for name, a in zip(names, answers, strict=True)}
        wanted = test["expected_ranking"]
        holds = [_holds(rule, scores) for rule in ([wanted] if isinstance(wanted, str) else wanted)]
        passed = None if None in holds else all(holds)
        rows.append({"id": test["id"], "category": test["category"], "passed": passed, "scores": scores})
    return rows


def _holds(rule: str, scores: dict[str, float | None]) -> bool | None:
    left, sign, right = rule.split()
    a, b = scores[left], scores[right]
    if a is None or b is None:
        return None
    return abs(a - b) <= SAME if sign == "=" else a > b + SAME if sign == ">" else a < b - SAME
