"""Which of the studies to learn from: k where rare findings are not rare (OraPO's 1,000)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from chexalign.records import Study


def balanced(studies: Sequence[Study], k: int, seed: int, labels_of: Callable[[Study], Sequence[float]]) -> list[Study]:
    """k studies, in their order: again and again one that has the label of which the fewest are taken so far.

    A study without any finding counts for a label of its own. The paper does not say how it balances. # our choice
    """
    shuffled = [studies[i] for i in np.random.default_rng(seed).permutation(len(studies))]
    rows = [list(labels_of(s)) for s in shuffled]
    rows = [[*row, 0.0 if any(row) else 1.0] for row in rows]
    waiting = {j: [i for i, row in enumerate(rows) if row[j]] for j in range(len(rows[0]))} if rows else {}
    counts = dict.fromkeys(waiting, 0)
    taken: set[int] = set()
    while len(taken) < min(k, len(studies)):
        for label in waiting:
            waiting[label] = [i for i in waiting[label] if i not in taken]
        fewest = min((j for j in waiting if waiting[j]), key=lambda j: counts[j])
        taken.add(first := waiting[fewest][0])
        for label, has in enumerate(rows[first]):
            counts[label] += bool(has)
    chosen = {shuffled[i].study_id for i in taken}
    return [s for s in studies if s.study_id in chosen]
