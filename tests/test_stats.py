import numpy as np
import pytest
from sklearn.metrics import f1_score

from chexalign import stats

BOOT = {"n_boot": 1000, "seed": 0, "level": 0.9}


def test_mean_cell_by_hand():
    cell = stats.mean_cell([1.0, 0.0, None, 1.0], **BOOT)
    assert cell["mean"] == pytest.approx(2 / 3)
    assert (cell["n"], cell["abstained"]) == (3, 1)
    assert 0 <= cell["low"] <= cell["mean"] <= cell["high"] <= 1


def test_constant_values_have_no_spread():
    cell = stats.mean_cell([0.4] * 10, **BOOT)
    assert [cell["low"], cell["high"]] == pytest.approx([0.4, 0.4])


def test_nothing_scored_is_no_number():
    assert stats.mean_cell([None, None], **BOOT) == {"mean": None, "low": None, "high": None, "n": 0, "abstained": 2}
    assert stats.mean_cell([], **BOOT)["mean"] is None


def test_interval_agrees_with_the_normal_approximation():
    values = np.random.default_rng(1).normal(0.5, 0.1, 400).tolist()
    cell = stats.mean_cell(values, 4000, 0, 0.9)
    half = 1.645 * np.std(values, ddof=1) / 20
    assert (cell["high"] - cell["low"]) / 2 == pytest.approx(half, rel=0.06)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng, hits = np.random.default_rng(2), 0
    for i in range(200):
        cell = stats.mean_cell(rng.normal(0.3, 1.0, 60).tolist(), 300, i, 0.9)
        hits += cell["low"] <= 0.3 <= cell["high"]
    assert 0.83 <= hits / 200 <= 0.96


def test_pairing_removes_the_variance_that_both_share():
    shared = np.random.default_rng(3).uniform(0, 1, 200)
    before, after = shared.tolist(), (shared + 0.01).tolist()
    cell = stats.paired_difference(before, after, **BOOT)
    assert cell["mean"] == pytest.approx(0.01) and cell["low"] > 0.0099
    unpaired = stats.mean_cell(before, **BOOT)
    assert unpaired["high"] - unpaired["low"] > 0.05


def test_paired_difference_uses_studies_scored_on_both_sides():
    cell = stats.paired_difference([0.5, None, 0.2], [0.7, 0.9, None], **BOOT)
    assert cell["mean"] == pytest.approx(0.2) and (cell["n"], cell["abstained"]) == (1, 2)
    with pytest.raises(ValueError, match="pair them"):
        stats.paired_difference([1.0], [], **BOOT)


def test_corpus_f1_equals_sklearn():
    rng, labels = np.random.default_rng(4), list("abcdef")
    y, p = rng.random((60, 6)) < 0.3, rng.random((60, 6)) < 0.4
    y[:, 5] = p[:, 5] = False  # a label that never occurs
    sets = [[frozenset(np.array(labels)[row]) for row in m] for m in (p, y)]
    totals = stats.confusion(*sets, labels).sum(0)
    assert stats.micro_f1(totals) == pytest.approx(f1_score(y, p, average="micro", zero_division=0))
    assert stats.macro_f1(totals) == pytest.approx(f1_score(y, p, average="macro", zero_division=0))


def test_precision_and_recall_by_hand():
    counts = stats.confusion([frozenset("ab"), frozenset()], [frozenset("a"), frozenset("a")], "ab").sum(0)
    assert stats.precision(counts) == 0.5 and stats.recall(counts) == 0.5


def test_corpus_cells_of_equal_policies_do_not_differ():
    counts = stats.confusion([frozenset("a")] * 5, [frozenset("ab")] * 5, "ab")
    before, after, difference = stats.corpus_cells((counts, counts), stats.micro_f1, **BOOT)
    assert before == after and difference["mean"] == difference["low"] == difference["high"] == 0


def test_no_studies_and_nothing_to_divide_by_give_no_number():
    empty = np.zeros((0, 3, 2))
    assert all(cell["mean"] is None for cell in stats.corpus_cells((empty, empty), stats.micro_f1, **BOOT))
    silent = stats.confusion([frozenset()] * 4, [frozenset("a")] * 4, "a")
    before, _, difference = stats.corpus_cells((silent, silent), stats.precision, **BOOT)
    assert before["mean"] is None and difference["mean"] is None


# ---- macro over the findings there are, and several policies after


def test_macro_over_the_labels_that_the_references_have_by_hand():
    """Labels: 2 of 3 stated are right and 1 of 3 is missed; never stated; only stated, so that it does not count."""
    totals = np.array([[2.0, 0.0, 0.0], [1.0, 0.0, 4.0], [1.0, 5.0, 0.0]])  # true positives, false ones, missed
    assert stats.macro_present(totals, "precision") == pytest.approx((2 / 3 + 0) / 2)
    assert stats.macro_present(totals, "recall") == pytest.approx((2 / 3 + 0) / 2)
    assert stats.macro_present(totals, "f1") == pytest.approx((4 / 6 + 0) / 2)
    assert np.isnan(stats.macro_present(totals[:, 2:], "f1"))


def test_the_metrics_of_several_seeds_are_averaged_in_every_resample():
    rng = np.random.default_rng(0)
    before, one, two = (rng.integers(0, 2, (40, 3, 4)).astype(float) for _ in range(3))
    alone = stats.corpus_cells((before, one), stats.macro_f1, **BOOT)
    twice = stats.corpus_cells((before, one, one), stats.macro_f1, **BOOT)
    assert all(x == pytest.approx(y) for x, y in zip(twice, alone, strict=True))
    both = stats.corpus_cells((before, one, two), stats.macro_f1, **BOOT)
    points = [float(stats.macro_f1(x.sum(0))) for x in (one, two)]
    assert both[0] == alone[0] and both[1]["mean"] == pytest.approx(sum(points) / 2)
    draws = [
        stats.macro_f1(np.tensordot(stats.resample(40, BOOT["n_boot"], BOOT["seed"]), x, axes=1)) for x in (one, two)
    ]
    low, high = np.quantile((draws[0] + draws[1]) / 2, [(1 - BOOT["level"]) / 2, (1 + BOOT["level"]) / 2])
    assert (both[1]["low"], both[1]["high"]) == (pytest.approx(low), pytest.approx(high))
