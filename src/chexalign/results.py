"""results.json: blocks of cells for baseline, aligned and their paired difference, on all studies and on subsets."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chexalign import stats
from chexalign.judges.labels import LABELS, label_report
from chexalign.judges.labels import positive_set as positives
from chexalign.recipe import Evaluate

FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
LABEL_SETS = {"14": LABELS, "13": LABELS[:-1], "5": FIVE}
SEED = 0  # of the bootstrap: the same resamples for every metric, so that cells can be compared


@dataclass(frozen=True)
class Answers:
    """One policy under one decoding on the evaluated studies, in their order."""

    texts: list[str]
    scores: dict[str, list[float | None]]  # judge → one score per study

    def words(self) -> list[float | None]:
        return [float(len(t.split())) for t in self.texts]


@functools.lru_cache(maxsize=100_000)
def label_set(text: str) -> frozenset[str]:
    """Positive labels of a report among the 14 (uncertain counts as positive, as in CheXbert's rrg mode)."""
    return positives(label_report(text))


def is_abnormal(reference: str) -> bool:
    """True when the reference report has a finding beyond devices: No Finding is not set."""
    return "No Finding" not in label_set(reference)


def block(
    before: Answers, after: Answers, references: Sequence[str], keep: Sequence[int], decoding: str, settings: Evaluate
) -> dict[str, Any]:
    """The cells of one subset (`keep` holds indices of studies)."""
    out: dict[str, Any] = {"baseline": {}, "aligned": {}, "difference": {}}
    boot = (settings.bootstrap, SEED, settings.level)
    series = {name: (before.scores[name], after.scores[name]) for name in before.scores}
    series["words"] = (before.words(), after.words())
    for name, (a, b) in series.items():
        a, b = [a[i] for i in keep], [b[i] for i in keep]
        out["baseline"][name] = stats.mean_cell(a, *boot)
        out["aligned"][name] = stats.mean_cell(b, *boot)
        out["difference"][name] = stats.paired_difference(a, b, *boot)
    for name, metric, labels in _corpus_metrics():
        counts = _counts((before, after), references, keep, labels)
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


def _corpus_metrics() -> list[tuple[str, Any, Sequence[str]]]:
    kinds = {"micro": stats.micro_f1, "macro": stats.macro_f1}
    return [(f"chexpert_rule_{k}{size}", f, labels) for k, f in kinds.items() for size, labels in LABEL_SETS.items()]


def _counts(
    answers: Sequence[Answers], references: Sequence[str], keep: Sequence[int], labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    actual = [label_set(references[i]) for i in keep]
    first, second = (stats.confusion([label_set(a.texts[i]) for i in keep], actual, labels) for a in answers)
    return first, second


def _put(out: dict[str, Any], name: str, cells: tuple[stats.Cell, stats.Cell, stats.Cell]) -> None:
    for side, cell in zip(("baseline", "aligned", "difference"), cells, strict=True):
        out[side][name] = cell


def finding_blocks(
    before: Answers, after: Answers, references: Sequence[str], decoding: str, settings: Evaluate
) -> dict[str, Any]:
    """Precision, recall and F1 of every finding that a report or a reference mentions; n counts reference positives."""
    everyone = range(len(references))
    blocks = {}
    for label in LABELS[:-1]:
        counts = _counts((before, after), references, everyone, [label])
        if not counts[0].sum() + counts[1].sum():
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


def warnings_for(results: dict[str, Any], cut_share: float) -> list[str]:
    """What a reader must know before believing the headline, in plain words."""
    found = []
    n, greedy = results["n_studies"], results["subsets"].get("greedy", results)
    template, shuffled = results["controls"]["template"], results["controls"].get("shuffled_images")
    shown = "findings section" if results.get("task") == "impression" else "image"
    for name in results["headline"]:
        best, fixed = greedy["aligned"][name]["mean"], template["scores"][name]["mean"]
        if best is not None and fixed is not None and best <= fixed:
            found.append(
                f"These reports are poor: one fixed report that ignores every {shown} scores {fixed:.3f} on {name}, the "
                f"aligned policy {best:.3f} at its best decoding. It has not learnt to read these {shown}s."
            )
        if shuffled:
            real, blind, gap = results["aligned"][name], shuffled["scores"][name], shuffled["difference"][name]
            if gap["low"] is not None and gap["low"] <= 0:
                found.append(
                    f"With the images of other studies the aligned policy scores {blind['mean']:.3f} on {name}, with the "
                    f"right ones {real['mean']:.3f}: it is not shown that this score comes from the images."
                )
    length = results["length"]
    if length["aligned"] and not 0.8 <= length["aligned"] / length["reference"] <= 1.2:
        ratio = length["aligned"] / length["reference"]
        found.append(
            f"Aligned reports have {ratio:.2f} times the words of the references: compare length-controlled scores."
        )
    if n < 100:
        found.append(f"Only {n} test studies: the intervals are wide, and a small change cannot be seen.")
    if cut_share > 0.01:
        found.append(f"{cut_share:.0%} of the aligned reports were cut at sample.max_new_tokens before they ended.")
    return found
