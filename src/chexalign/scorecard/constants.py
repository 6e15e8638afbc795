"""The best constant text of a judge: what a policy that looks at no image could earn by always writing the same.

Searched among given reports and among texts composed of single statements, one sentence added at a time while that helps. The
search is bounded and deterministic: the same reports give the same text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from chexalign.judges.contract import Judge
from chexalign.judges.registry import JUDGES, LC
from chexalign.labels import FINDINGS

REPORTS, TRIED_ON, SENTENCES = (
    40,
    100,
    3,
)  # reports tried, studies they are tried on, sentences of a composed text # our choice
NORMAL = ("The lungs are clear.", "The heart size is normal.", "No pleural effusion or pneumothorax.")
STATEMENTS = (
    *NORMAL,
    "No acute cardiopulmonary abnormality.",
    *(f"There is {name.lower()}." for name in FINDINGS),
    *(f"Possible {name.lower()}." for name in FINDINGS),
    "There is an opacity.",
    "Bibasilar atelectasis.",
    "Small bilateral pleural effusions.",
    "Degenerative changes of the spine.",
)


def needs_a_model(line: str) -> bool:
    """Whether a judge's name or line asks for weights, a language model or a package beyond the core."""
    names = [name.removeprefix(LC) for name in re.findall(r"[A-Za-z_][\w.]*", line)]
    asks = "facts[" in line  # with a language model in brackets
    return asks or any(name in JUDGES and JUDGES[name].needs != "nothing" for name in names)


def best_constant(judge: Judge, references: Sequence[str], reports: Sequence[str]) -> dict[str, Any]:
    """{text, score, n, candidates}: the candidate with the highest mean score on the first TRIED_ON references.

    Abstentions are left out; `text` and `score` are None where the judge abstains on all.
    """
    truth = list(references[:TRIED_ON])
    tried: dict[str, float | None] = {}

    def worth(text: str) -> float:
        if text not in tried:
            known = [a.score for a in judge.score([text] * len(truth), truth) if a.score is not None]
            tried[text] = sum(known) / len(known) if known else None
        return -1e9 if tried[text] is None else float(tried[text] or 0.0)

    step = max(1, -(-len(reports) // REPORTS))
    best = max([*STATEMENTS, *sorted(reports)[::step]], key=worth) if truth else ""
    composed = max(STATEMENTS, key=worth) if truth else ""
    for _ in range(SENTENCES - 1):
        longer = max((f"{composed} {s}" for s in STATEMENTS if s not in composed), key=worth, default=composed)
        if worth(longer) <= worth(composed):
            break
        composed = longer
    best = max((best, composed), key=worth) if truth else ""
    known = tried.get(best)
    return {"text": best if known is not None else None, "score": known, "n": len(truth), "candidates": len(tried)}
