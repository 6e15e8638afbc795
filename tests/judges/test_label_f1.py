"""F1 over label rows: the published values of CheXbert's own example, scikit-learn, and each meaning of uncertain."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from chexalign.labels import FINDINGS, LABELS, label_report
from chexalign.labels.f1 import corpus_f1, exact_match, report_f1
from chexalign.records import FIVE, LABEL_SETS


def row(*present, uncertain=()):
    """All labels absent but these."""
    return dict.fromkeys(LABELS, 0) | dict.fromkeys(present, 1) | dict.fromkeys(uncertain, -1)


# The labels that CheXbert gives the five pairs of f1chexbert's and RadEval's test, by what the published values imply.
REPORTS = [
    row("No Finding"),
    row("No Finding"),
    row("Edema", "Atelectasis"),
    row("Consolidation"),
    row("Pleural Other"),
]
REFERENCES = [
    row("No Finding"),
    row("Cardiomegaly"),
    row("Cardiomegaly"),
    row("Consolidation"),
    row(uncertain=["Lung Opacity"]),
]


def test_the_published_values_of_five_pairs():
    """judges.md 5(c): accuracy5 .6, per sample [1,0,0,1,1], micro14 .363636, macro14 .119048, micro5 .333333, macro5 .2."""
    matches = [exact_match(a, b) for a, b in zip(REPORTS, REFERENCES, strict=True)]
    assert matches == [1, 0, 0, 1, 1] and np.mean(matches) == pytest.approx(0.6)
    all14, five = corpus_f1(REPORTS, REFERENCES, LABELS), corpus_f1(REPORTS, REFERENCES, FIVE)
    assert all14["micro"] == pytest.approx(0.363636, abs=1e-6) and all14["macro"] == pytest.approx(0.119048, abs=1e-6)
    assert five["micro"] == pytest.approx(0.333333, abs=1e-6) and five["macro"] == pytest.approx(0.2)


def test_the_three_means_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    a, b = ((rng.random((200, 14)) < 0.2).astype(int) for _ in range(2))
    ours = corpus_f1(
        [dict(zip(LABELS, r, strict=True)) for r in a.tolist()],
        [dict(zip(LABELS, r, strict=True)) for r in b.tolist()],
        LABELS,
    )
    for kind in ("micro", "macro"):
        assert ours[kind] == pytest.approx(f1_score(b, a, average=kind, zero_division=0))
    assert ours["example"] == pytest.approx(f1_score(b, a, average="samples", zero_division=1))


def test_uncertain_three_ways_by_hand():
    """Report: edema, fracture doubtful. Reference: edema doubtful, fracture, consolidation."""
    report, reference = row("Edema", uncertain=["Fracture"]), row("Fracture", "Consolidation", uncertain=["Edema"])
    assert report_f1(report, reference, uncertain="positive") == pytest.approx(2 * 2 / 5)
    assert report_f1(report, reference, uncertain="negative") == 0
    assert report_f1(report, reference, uncertain="ignore") == 0  # only the missed consolidation is left
    assert report_f1(row(uncertain=["Edema"]), row("Edema"), uncertain="ignore") == 1  # nothing is left
    assert corpus_f1([report], [reference], ("Edema", "Fracture"), "ignore") == {"micro": 0, "macro": 0, "example": 1}


def test_normal_against_normal_is_1_by_report_and_0_as_a_class():
    normal = row("No Finding")
    assert report_f1(normal, normal) == 1 and report_f1(normal, normal, LABELS) == 1
    assert corpus_f1([normal], [normal]) == {"micro": 0, "macro": 0, "example": 1}


def test_not_mentioned_is_absent():
    nothing = dict.fromkeys(LABELS)
    assert report_f1(nothing, row("Edema")) == 0 and report_f1(nothing, row()) == 1


def test_the_sets_of_labels():
    assert {k: len(v) for k, v in LABEL_SETS.items()} == {"14": 14, "13": 13, "5": 5}
    assert LABEL_SETS["13"] == FINDINGS and "No Finding" not in FIVE


def test_it_reads_what_the_rule_labeller_writes():
    report, reference = label_report("Mild edema. Possible effusion."), label_report("Edema. No effusion.")
    assert report_f1(report, reference) == pytest.approx(2 / 3)
    assert report_f1(report, reference, uncertain="negative") == 1


@pytest.mark.parametrize(("a", "b"), [([], []), ([row()], [])])
def test_lists_that_do_not_match_are_refused(a, b):
    with pytest.raises(ValueError, match="at least one"):
        corpus_f1(a, b)
