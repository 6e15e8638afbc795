"""Which language a source's reports are in: the rule judges and the labels of the warm-up read English alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from chexalign.labels.readability import ENGLISH, examine

LOOKED_AT = 200  # reports
FEWEST = 0.2  # share of them in one other language, from which it is said: our choice


def language_warning(texts: Sequence[str]) -> str | None:
    """One line where many reports are not in English, with the language of most of those."""
    looked = texts[:: max(1, len(texts) // LOOKED_AT)]
    languages = Counter(found for text in looked if (found := examine(text).language) not in (None, ENGLISH))
    if not languages or languages.total() < FEWEST * len(looked):
        return None
    return (
        f"reports are not English ({languages.most_common(1)[0][0]}, {languages.total()} of {len(looked)} looked at): "
        "chexpert_rule_f1, finding_f1 and the warm-up's labels read English alone; judge with rouge_l or bleu4"
    )
