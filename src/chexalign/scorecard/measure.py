"""What a judge is worth: agreement with radiologists, attacks, length, abstentions and speed. One dict per judge.

Pure measuring: reading files and writing the page are elsewhere (scorecard/inputs.py, report/scorecard/page.py).
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from chexalign.judges.contract import Judge
from chexalign.labels import label_report
from chexalign.scorecard import agreement
from chexalign.scorecard import attacks as probes
from chexalign.scorecard.agreement import Rated
from chexalign.scorecard.constants import TRIED_ON, best_constant, needs_a_model

MARGIN = 0.02  # of scores: a smaller drop is none, a smaller rise is none # our choice
TIMED = 400  # reports to time, fewer for a slow judge
SECONDS = 5.0  # a judge that needs longer for its first ten reports is timed on those

Scores = list[float | None]


def measure(
    judge: Judge, rated: Sequence[Rated], tests: Sequence[dict[str, Any]], texts: Sequence[str]
) -> dict[str, Any]:
    """All that can be measured of one judge. `texts` are reports to attack, each of another study."""
    out: dict[str, Any] = {"name": judge.name, "version": judge.version}
    out["speed"] = speed(judge, texts)  # first: nothing is in the judge's memory yet
    if rated:
        scores = _scores(judge, [r.report for r in rated], [r.reference for r in rated])
        out["agreement"] = agreement.agreement(scores, rated)
        out["scores"] = scores
        out["length"] = _length(scores, rated)
    if tests:
        out["ranking_tests"] = agreement.ranking_tests(judge, tests)
    return {**out, "cases": cases(judge), **corpus(judge, texts), "constant": constants(judge, texts)}


def constants(judge: Judge, texts: Sequence[str]) -> dict[str, Any] | None:
    """The best constant text on all and on abnormal studies (constants.py), beside another study's report.

    None for a judge that needs a model: the search asks it thousands of times. The kind of judge decides and never the clock,
    so that a busy machine gives the same table.
    """
    if needs_a_model(judge.name):
        return None
    others = [*texts[1:], *texts[:1]]
    ill = [i for i, t in enumerate(texts) if label_report(t)["No Finding"] is None]
    out = {}
    for name, at in (("all", list(range(len(texts)))), ("abnormal", ill)):
        references = [texts[i] for i in at]
        other = _mean(_scores(judge, [others[i] for i in at][:TRIED_ON], references[:TRIED_ON]))
        out[name] = {**best_constant(judge, references, texts), "other": other}
    return out


def _scores(judge: Judge, reports: Sequence[str], references: Sequence[str]) -> Scores:
    return [a.score for a in judge.score(reports, references)]


def _length(scores: Scores, rated: Sequence[Rated]) -> dict[str, Any]:
    """Rank correlation of the score with the words of the report, beside what the ratings have."""
    kept = [(s, len(r.report.split()), r.rating) for s, r in zip(scores, rated, strict=True) if s is not None]
    if len(kept) < 3:
        return {"score": None, "rating": None}
    s, words, rating = (np.array(column, dtype=float) for column in zip(*kept, strict=True))
    found = {"score": agreement.spearman(s, words), "rating": agreement.spearman(rating, words)}
    return {k: v if np.isfinite(v) else None for k, v in found.items()}


def cases(judge: Judge) -> list[dict[str, Any]]:
    """The hand-written attacks. "Little" is at most half of full marks; "nothing" is the lowest score of all."""
    scores = {name: _scores(judge, [report], [reference])[0] for name, reference, report, _ in probes.CASES}
    known = [s for s in scores.values() if s is not None]
    full = scores["identity"]
    rows = []
    for name, reference, report, deserves in probes.CASES:
        score, good = scores[name], None
        if score is not None and full is not None:
            good = {
                "full marks": score >= full - MARGIN,
                "full marks or less": score <= full + MARGIN / 4,
                "less than full marks": score <= full - MARGIN,
                "little": score <= full / 2,
                "nothing": score <= min(known),
            }[deserves]
        rows.append(
            {"case": name, "reference": reference, "report": report, "deserves": deserves, "score": score, "good": good}
        )
    return rows


def corpus(judge: Judge, texts: Sequence[str]) -> dict[str, Any]:
    """Edits of given reports, and a fixed normal template against the report of another study."""
    others = [*texts[1:], *texts[:1]]
    itself, other = _scores(judge, texts, texts), _scores(judge, others, texts)
    rows = []
    for name, (edit, deserves) in probes.EDITS.items():
        base, reports = (other, others) if deserves in ("the same", "no more") else (itself, texts)
        edited = [edit(t) for t in reports]
        at = [i for i, t in enumerate(edited) if t is not None]
        answers = _scores(judge, [edited[i] or "" for i in at], [texts[i] for i in at])
        pairs = [(base[i], s) for i, s in zip(at, answers, strict=True)]
        rows.append({"edit": name, "deserves": deserves, **_change(pairs, deserves, _mean(other))})
    abnormal = [i for i, t in enumerate(texts) if label_report(t)["No Finding"] is None]
    template = _scores(judge, [probes.TEMPLATE] * len(texts), texts)
    every = range(len(texts))
    out = {"edits": rows, "n_reports": len(texts), "reports_abstained": sum(s is None for s in itself)}
    out["template"] = {
        name: {"n": len(at), "template": _mean([template[i] for i in at]), "other": _mean([other[i] for i in at])}
        for name, at in (("all", every), ("abnormal", abnormal))
    }
    return out


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [s for s in scores if s is not None]
    return sum(known) / len(known) if known else None


def _change(pairs: Sequence[tuple[float | None, float | None]], deserves: str, other: float | None) -> dict[str, Any]:
    kept = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not kept or other is None:
        return {"n": len(kept), "before": None, "after": None, "good": None}
    before, after = (sum(column) / len(kept) for column in zip(*kept, strict=True))
    good = {
        "the same": abs(after - before) <= MARGIN,
        "no more": after <= before + MARGIN / 4,
        "less": after <= before - MARGIN,
        "nothing": after <= min(other, before) and after <= MARGIN,
    }[deserves]
    return {"n": len(kept), "before": before, "after": after, "good": good}


def speed(judge: Judge, texts: Sequence[str]) -> dict[str, Any]:
    """Reports per second on this machine: all texts new, and new reports for references already read."""
    texts = list(dict.fromkeys(texts))[:TIMED]
    _scores(judge, ["The heart is normal."], ["The lungs are clear."])  # weights and tables are loaded once
    started = time.perf_counter()
    _scores(judge, texts[1:11], texts[:10])
    if time.perf_counter() - started > SECONDS:
        rate = 10 / (time.perf_counter() - started)
        return {"n": 10, "cold": rate, "cached_references": None}
    half = (len(texts) - 11) // 2
    if half < 1:
        return {"n": 0, "cold": None, "cached_references": None}
    reports, references = texts[11 : 11 + half], texts[11 + half : 11 + 2 * half]
    started = time.perf_counter()
    _scores(judge, reports, references)
    cold = half / max(time.perf_counter() - started, 1e-9)
    new = [f"{text} {random.Random(i).choice(probes.NORMAL.split('. '))}." for i, text in enumerate(reports)]
    started = time.perf_counter()
    _scores(judge, new, references)
    return {"n": half, "cold": cold, "cached_references": half / max(time.perf_counter() - started, 1e-9)}
