"""KTO's mismatched completions come from other patients, always, and a run that has none is refused."""

import numpy as np
import pytest

from chexalign.errors import WorkError
from chexalign.train.preference.mismatch import donors


def drawn(n: int, patients: int, seed: int) -> list[str]:
    """n pairs of patients who bring different numbers of pairs, in any order."""
    return [f"p{i}" for i in np.random.default_rng(seed).zipf(1.5, n) % patients]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("n", "patients"), [(2, 2), (3, 2), (7, 3), (40, 5), (200, 60)])
def test_a_donor_is_never_the_same_patient(n, patients, seed):
    who = [*drawn(n, patients, seed), "p0", "p1"]
    given = donors(who, seed)
    assert all(who[i] != who[j] for i, j in enumerate(given))


@pytest.mark.parametrize("seed", range(5))
def test_every_pair_is_taken_once_where_no_patient_holds_more_than_half(seed):
    who = [f"p{i}" for i in (0, 0, 0, 0, 1, 1, 2, 3, 4, 5)]  # also one patient of exactly half: below
    assert sorted(donors(who, seed)) == list(range(len(who)))
    assert sorted(donors([f"p{i}" for i in (0, 1, 0, 2, 0, 3)], seed)) == list(range(6))


def test_one_patient_with_most_pairs_draws_from_the_others():
    who = ["p0"] * 9 + ["p1", "p2"]
    given = [donors(who, seed) for seed in range(6)]
    assert all(who[i] != who[j] for g in given for i, j in enumerate(g))
    assert {j for g in given for j in g[:9]} == {9, 10}


def test_the_seed_fixes_the_draw_and_another_changes_it():
    who = [f"p{i}" for i in range(50)]
    assert donors(who, 3) == donors(who, 3) != donors(who, 4)


@pytest.mark.parametrize("who", [["p0"], ["p0", "p0", "p0"]])
def test_one_patient_alone_is_refused(who):
    with pytest.raises(WorkError, match="one of another patient, and pairs.jsonl holds 1 patient;"):
        donors(who, 0)
