"""KTO's mismatched completions: whose reports stand in for another study's, to estimate a KL divergence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from chexalign.errors import WorkError


def donors(patients: Sequence[str], seed: int) -> list[int]:
    """For each pair the index of a pair of another patient, (n,) → (n,), fixed by `seed`.

    The pairs stand in a circle, in random order but each patient's side by side, and each takes the pair that is as far
    on as the largest patient is wide. So every pair is taken once, and none by its own patient, however many pairs a
    study brings. Where one patient holds more than half of the pairs that cannot be: that patient draws from the others.
    """
    generator, groups = np.random.default_rng(seed), defaultdict(list)
    for i in generator.permutation(len(patients)).tolist():
        groups[patients[i]].append(i)
    if len(groups) < 2:
        raise WorkError(
            f"algorithm kto compares each report with one of another patient, and pairs.jsonl holds {len(groups)} patient; "
            "take more studies, or another algorithm"
        )
    circle, found = [i for group in groups.values() for i in group], [0] * len(patients)
    largest = max(groups, key=lambda patient: len(groups[patient]))
    others = [i for i in circle if patients[i] != largest]
    for place, i in enumerate(circle):
        j = circle[(place + len(groups[largest])) % len(circle)]
        found[i] = j if patients[j] != patients[i] else others[generator.integers(len(others))]
    return found
