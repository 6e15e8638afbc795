"""Counts per study behind the corpus metrics: labels by rules and by CheXbert, words and n-grams of BLEU."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chexalign.corpus import BLEU, CHEXBERT, LABELS, RULES, label_counts
from chexalign.errors import Abstain
from chexalign.evaluation.answers import Answers, label_set, truth_set
from chexalign.judges import from_recipe
from chexalign.judges.contract import TextJudge
from chexalign.judges.lexical import coco_counts
from chexalign.judges.line import leaf_names, split_name
from chexalign.judges.registry import Options
from chexalign.labels import positive_set
from chexalign.records import Study

LABELLERS = ("chexbert_f1", "radeval_chexbert")  # judges whose labels are counted beside the rules'


def counts_of(answers: Answers, references: Sequence[str]) -> dict[str, np.ndarray]:
    """Family → counts per study, (n, …): what corpus.metrics_of needs. Those of CheXbert where `answers` brings them."""
    rules = label_counts([label_set(t) for t in answers.texts], [label_set(t) for t in references])
    words = np.array([_bleu_counts(a, b) for a, b in zip(answers.texts, references, strict=True)], dtype=float)
    return {RULES: rules, BLEU: words.reshape(len(references), -1), **answers.counts}


def gold_counts(reports: Sequence[str], references: Sequence[str], studies: Sequence[Study]) -> dict[str, np.ndarray]:
    """{"chexpert_rule": counts} where a study has labels and no report: its truth is then its source's labels."""
    if all(any(c.isalnum() for c in reference) for reference in references):
        return {}
    truth = [truth_set(reference, study) for reference, study in zip(references, studies, strict=True)]
    return {RULES: label_counts([label_set(t) for t in reports], truth)}


@functools.lru_cache(maxsize=100_000)
def _bleu_counts(report: str, reference: str) -> tuple[int, ...]:
    return tuple(coco_counts(report, reference))


def chexbert_counts(
    judges: Sequence[str], options: Options, reports: Sequence[str], references: Sequence[str]
) -> dict[str, np.ndarray]:
    """{"chexbert": counts} where a judge of these recipe lines is CheXbert's, else nothing. Each text is read once.

    Uncertain counts as positive, as in CheXbert's report-generation mode; a text that cannot be read has no labels.
    """
    named = {split_name(name)[0] for line in judges for name in leaf_names(line)}
    labeller = next((name for name in LABELLERS if name in named), None)
    if labeller is None:
        return {}
    judge = from_recipe(labeller, options)
    assert isinstance(judge, TextJudge)
    rows = judge.features([*reports, *references])
    sets = {text: _positives(row) for text, row in rows.items()}
    return {CHEXBERT: label_counts([sets[t] for t in reports], [sets[t] for t in references])}


def _positives(row: Mapping[str, int | None] | Sequence[str] | Abstain) -> frozenset[str]:
    """The positive labels of what a labeller gives for a text: statuses by label, or the names themselves."""
    if isinstance(row, Abstain):
        return frozenset()
    return positive_set(row) if isinstance(row, Mapping) else frozenset(row)


def row_counts(counts: Mapping[str, np.ndarray], i: int) -> dict[str, Any]:
    """One study's counts for per_study.jsonl: names of labels by tp, fp and fn, and BLEU's ten numbers."""
    return {
        family: [int(v) for v in rows[i]]
        if rows.ndim == 2
        else {k: [LABELS[j] for j in np.flatnonzero(rows[i, at])] for at, k in enumerate(("tp", "fp", "fn"))}
        for family, rows in counts.items()
    }


def facts_line(judges: Sequence[str]) -> str | None:
    """The first of these recipe lines that asks the judge `facts`, or None."""
    asked = (line for line in judges if any(split_name(name)[0] == "facts" for name in leaf_names(line)))
    return next(asked, None)


def facts_read(details: Mapping[str, Any]) -> dict[str, list[str]]:
    """Label → the facts of a report that decide it, each with what it says; from the details of `facts` or of a part."""
    by_label: dict[str, list[str]] = {}
    for row in details.get("facts") or ():
        for label, status in row["labels"].items():
            by_label.setdefault(label, []).append(f"{row['fact']} ({status})")
    for part in details.get("parts", {}).values():
        by_label = by_label or facts_read(part["details"])
    return by_label
