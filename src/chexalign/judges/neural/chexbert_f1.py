"""F1 of the positive labels that CheXbert finds in report and reference: per report (the judge), and per corpus."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from chexalign.judges.cache import open_store, remembered
from chexalign.judges.contract import TextJudge
from chexalign.judges.weights import fingerprint
from chexalign.labels.f1 import Row, Uncertain, calls, corpus_f1, report_f1
from chexalign.labels.readability import ENGLISH
from chexalign.records import LABEL_SETS

WHERE = (
    "weights: chexbert.pth (1.3 GB, hub: StanfordAIMI/RRG_scorers) and tokenizer: bert-base-uncased or its vocab.txt"
)


def chexbert_f1(
    *,
    weights: Path | None = None,
    tokenizer: str | None = None,
    variant: Literal["13", "14", "5"] = "13",
    uncertain: Uncertain = "positive",
    download: bool = False,
    device: str = "auto",
    cache: str | None = None,
) -> TextJudge:
    """2·|A∩B| / (|A|+|B|) over the positive labels among 13 (no No Finding), 14 or CheXbert's 5; 1 when both are empty.

    `uncertain: positive` is CheXbert's report-generation mode, which published numbers use; VALOR's s_cx is of this kind.
    """
    version = f"1 labels={variant} uncertain={uncertain} weights={fingerprint(weights) if weights else 'none'}"
    store = open_store(cache, "chexbert")

    @functools.cache
    def labeller() -> Any:
        import torch

        from chexalign.errors import RecipeError
        from chexalign.judges.neural.chexbert import load_chexbert

        if why := missing(weights=weights, tokenizer=tokenizer, download=download):
            raise RecipeError(f"judge chexbert_f1: {why}")
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        return load_chexbert(Path(weights or ""), tokenizer or "", download=download, device=chosen)

    def read(texts: Sequence[str]) -> list[dict[str, int | None]]:
        return labeller()(texts)

    labels_of = remembered(store, f"chexbert labels 1 {fingerprint(weights) if weights else ''}", read)

    def compare(report: Row, reference: Row) -> tuple[float, dict[str, Any]]:
        counted = list(calls(report, reference, LABEL_SETS[variant], uncertain))
        kinds = {"tp": (True, True), "fp": (True, False), "fn": (False, True)}
        details = {kind: [label for label, *both in counted if tuple(both) == wanted] for kind, wanted in kinds.items()}
        return report_f1(report, reference, LABEL_SETS[variant], uncertain), details

    name = "chexbert_f1" if variant == "13" else f"chexbert_f1[{variant}]"
    return TextJudge(name, version, None, compare, labels_of, reads=ENGLISH)


def corpus_chexbert_f1(
    judge: TextJudge,
    reports: Sequence[str],
    references: Sequence[str],
    *,
    variant: Literal["13", "14", "5"] = "13",
    uncertain: Uncertain = "positive",
) -> dict[str, float]:
    """Micro, macro and example F1 over a corpus, from the labels that the judge has read: each text once."""
    rows = judge.features([*reports, *references])
    return corpus_f1([rows[t] for t in reports], [rows[t] for t in references], LABEL_SETS[variant], uncertain)


def missing(
    *, weights: Path | None = None, tokenizer: str | None = None, download: bool = False, **_: Any
) -> str | None:
    """What this judge lacks, or None."""
    if weights is None or tokenizer is None:
        return f"its weights are not given; set {WHERE}"
    if not weights.is_file():
        return f"weights {weights} are missing; set {WHERE}"
    if not Path(tokenizer).exists() and not download:
        return f"tokenizer {tokenizer} is no local path; set {WHERE}, or download: true"
    return None
