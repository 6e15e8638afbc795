"""results.json: blocks of cells for baseline, aligned and their paired difference, on all studies and on subsets."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from chexalign import stats
from chexalign.evaluation.answers import SEED, Answers, label_set
from chexalign.labels import LABELS
from chexalign.recipe.recipe import Evaluate

FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
LABEL_SETS = {"14": LABELS, "13": LABELS[:-1], "5": FIVE}
MACRO = {part: f"chexpert_rule_macro_{part}" for part in ("precision", "recall", "f1")}


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
) -> dict[str, Any]:
    """The cells of one subset (`keep` holds indices of studies). Several `after`, one per seed, are averaged by study."""
    afters = [after] if isinstance(after, Answers) else list(after)
    out: dict[str, Any] = {"baseline": {}, "aligned": {}, "difference": {}}
    boot = (settings.bootstrap, SEED, settings.level)
    series = {name: (before.scores[name], mean_over([x.scores[name] for x in afters])) for name in before.scores}
    series["words"] = (before.words(), mean_over([x.words() for x in afters]))
    for name, (a, b) in series.items():
        a, b = [a[i] for i in keep], [b[i] for i in keep]
        out["baseline"][name] = stats.mean_cell(a, *boot)
        out["aligned"][name] = stats.mean_cell(b, *boot)
        out["difference"][name] = stats.paired_difference(a, b, *boot)
    for name, metric, labels in _corpus_metrics():
        counts = _counts((before, *afters), references, keep, labels)
        _put(out, name, stats.corpus_cells(counts, metric, *boot))
    for name, cell in out["difference"].items():
        start = out["baseline"][name]["mean"]
        cell["relative"] = cell["mean"] / start if start and cell["mean"] is not None else None
    out["length"] = {
        "baseline": out["baseline"]["words"]["mean"],
        "aligned": out["aligned"]["words"]["mean"],
        "reference": float(np.mean([len(references[i].split()) for i in keep])) if len(keep) else None,
    }
    return {**out, "n_studies": len(keep), "decoding": decoding}


def seed_values(runs: Sequence[Answers], references: Sequence[str]) -> dict[str, list[float | None]]:
    """Metric → its value in each run, on all studies."""
    found: dict[str, list[float | None]] = {}
    for run in runs:
        for name, values in {**run.scores, "words": run.words()}.items():
            known = [v for v in values if v is not None]
            found.setdefault(name, []).append(sum(known) / len(known) if known else None)
        for name, metric, labels in _corpus_metrics():
            value = float(metric(_counts([run], references, range(len(references)), labels)[0].sum(0)))
            found.setdefault(name, []).append(value if np.isfinite(value) else None)
    return found


def _corpus_metrics() -> list[tuple[str, Any, Sequence[str]]]:
    """Name, metric, labels: F1 over 14, 13 and 5 labels, and macro precision, recall and F1 over the findings there are."""
    kinds = {"micro": stats.micro_f1, "macro": stats.macro_f1}
    sized = [(f"chexpert_rule_{k}{size}", f, labels) for k, f in kinds.items() for size, labels in LABEL_SETS.items()]
    parts = [(name, functools.partial(stats.macro_present, part=part)) for part, name in MACRO.items()]
    return [*sized, *((name, metric, LABEL_SETS["13"]) for name, metric in parts)]


def _counts(
    answers: Sequence[Answers], references: Sequence[str], keep: Sequence[int], labels: Sequence[str]
) -> list[np.ndarray]:
    actual = [label_set(references[i]) for i in keep]
    return [stats.confusion([label_set(a.texts[i]) for i in keep], actual, labels) for a in answers]


def _put(out: dict[str, Any], name: str, cells: tuple[stats.Cell, stats.Cell, stats.Cell]) -> None:
    for side, cell in zip(("baseline", "aligned", "difference"), cells, strict=True):
        out[side][name] = cell


def finding_blocks(
    before: Answers,
    after: Answers | Sequence[Answers],
    references: Sequence[str],
    decoding: str,
    settings: Evaluate,
) -> dict[str, Any]:
    """Precision, recall and F1 of every finding that a report or a reference mentions; n counts reference positives."""
    everyone, afters = range(len(references)), [after] if isinstance(after, Answers) else list(after)
    blocks = {}
    for label in LABELS[:-1]:
        counts = _counts((before, *afters), references, everyone, [label])
        if not sum(x.sum() for x in counts):
            continue
        support = int(counts[0][:, (0, 2)].sum())
        out: dict[str, Any] = {"baseline": {}, "aligned": {}, "difference": {}}
        for name, metric in (("precision", stats.precision), ("recall", stats.recall), ("f1", stats.micro_f1)):
            _put(out, name, stats.corpus_cells(counts, metric, settings.bootstrap, SEED, settings.level))
        for side in ("baseline", "aligned", "difference"):
            for cell in out[side].values():
                cell["n"] = support
        blocks[f"finding/{label}"] = {**out, "n_studies": support, "decoding": decoding}
    return blocks
