"""Whether reports are in English: the rule judges, the labels and most language-model judges read nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable

ENGLISH = frozenset(
    "the of is are no and with in there to a or without for not be at has have seen was normal heart lungs lung left right "
    "clear effusion pneumothorax evidence acute stable small size within limits focal".split()
)
FEWEST = (
    0.1  # share of such words; measured: .29 in the IU X-ray reports, below .03 in German and Spanish ones; our choice
)
WORD = re.compile(r"[^\W\d_]+")
LOOKED_AT = 500  # reports


def share_of_english_words(texts: Iterable[str]) -> float | None:
    """Share of the words that are frequent in English reports; None where there are fewer than 20 words."""
    words = [w for text in texts for w in WORD.findall(text.lower())]
    return sum(w in ENGLISH for w in words) / len(words) if len(words) >= 20 else None


def language_warning(texts: list[str]) -> str | None:
    """One line where the reports do not read as English."""
    share = share_of_english_words(texts[:: max(1, len(texts) // LOOKED_AT)])
    if share is None or share >= FEWEST:
        return None
    return (
        "the reports do not read as English: chexpert_rule_f1, finding_f1 and the labels of the warm-up read English alone "
        "and would count negated findings as present; judge with rouge_l, bleu4 or bertscore"
    )
