"""Corpus metrics: published CheXbert values, BLEU's equation, paired intervals by hand, and what compare makes of them."""

import os

import numpy as np
import pytest

from chexalign import corpus
from chexalign.evaluation.answers import Answers
from chexalign.evaluation.blocks import block, finding_blocks, seed_values
from chexalign.evaluation.counting import chexbert_counts, counts_of, row_counts
from chexalign.judges.lexical import coco_counts, corpus_bleu_coco
from chexalign.labels import LABELS
from chexalign.recipe.recipe import Evaluate

# RadEval's test of f1chexbert (MIT): five pairs, the labels that its published class report implies, and its values.
PAIRS = [
    ("No pleural effusion. Normal heart size.", "No pleural effusions."),
    ("Normal heart size.", "Enlarged heart."),
    ("Increased mild pulmonary edema and left basal atelectasis.", "No evidence of pneumonia. Stable cardiomegaly."),
    ("Bilateral lower lobe bronchiectasis with improved right lower medial lung peribronchial consolidation.",) * 2,
    (
        "Elevated left hemidiaphragm and blunting of the left costophrenic angle although no definite evidence of pleural "
        "effusion seen on the lateral view.",
        "No acute cardiopulmonary process. No significant interval change. Please note that peribronchovascular ground-glass "
        "opacities at the left greater than right lung bases seen on the prior chest CT of ___ were not appreciated on prior "
        "chest radiography on the same date and may still be present. Additionally, several pulmonary nodules measuring up to "
        "3 mm are not not well appreciated on the current study-CT is more sensitive.",
    ),
]
READ = [
    ({"No Finding"}, {"No Finding"}),
    ({"No Finding"}, {"Cardiomegaly"}),
    ({"Edema", "Atelectasis"}, {"Cardiomegaly"}),
    ({"Consolidation"}, {"Consolidation"}),
    (set(), {"Lung Opacity", "Lung Lesion"}),
]
PUBLISHED = {
    "chexbert_micro_14": 0.36363636363636365,
    "chexbert_macro_14": 0.11904761904761904,
    "chexbert_micro_5": 0.3333333333333333,
    "chexbert_macro_5": 0.2,
    "chexbert_micro_precision_14": 0.4,
    "chexbert_micro_recall_14": 0.3333333333333333,
    "chexbert_macro_precision_14": 0.10714285714285714,
    "chexbert_macro_recall_14": 0.14285714285714285,
}
SETTINGS = Evaluate(bootstrap=200)


def sets(side):
    return [frozenset(pair[side]) for pair in READ]


def counts():
    return corpus.label_counts(sets(0), sets(1))


def test_the_labels_are_those_of_the_labeller_in_its_order():
    assert corpus.LABELS == LABELS


def test_published_values_of_f1chexbert():
    values = {name: float(value(counts().sum(0))) for name, value in corpus.metrics_of("chexbert").items()}
    assert {k: values[k] for k in PUBLISHED} == pytest.approx(PUBLISHED)
    four = [PUBLISHED[f"chexbert_{k}_{n}"] for k in ("micro", "macro") for n in (14, 5)]
    assert values["chexbert_mean"] == pytest.approx(sum(four) / 4)


def test_published_values_with_the_weights():
    weights, tokenizer = (os.environ.get(f"CHEXALIGN_CHEXBERT_{name}") for name in ("WEIGHTS", "TOKENIZER"))
    if not (weights and tokenizer):
        pytest.skip(
            "CHEXALIGN_CHEXBERT_WEIGHTS and CHEXALIGN_CHEXBERT_TOKENIZER name no chexbert.pth and bert-base-uncased"
        )
    options = {"chexbert_f1": {"weights": weights, "tokenizer": tokenizer}}
    reports, references = [p[0] for p in PAIRS], [p[1] for p in PAIRS]
    found = chexbert_counts(["chexbert_f1"], options, reports, references)["chexbert"]
    assert found.tolist() == counts().tolist()


def test_bleu_is_the_sum_of_counts_and_equals_the_one_for_two_lists():
    pairs = [("a b c d e", "a b c d f"), ("x", "x y z"), ("no shared words", "other tokens")]
    totals = np.array([coco_counts(*p) for p in pairs], dtype=float).sum(0)
    for order in (1, 2, 3, 4):
        want = corpus_bleu_coco([p[0] for p in pairs], [p[1] for p in pairs], order)
        assert float(corpus.bleu(totals, order)) == pytest.approx(want, rel=1e-12)
    assert corpus.bleu(np.stack([totals, totals])).shape == (2,)


def answers(texts, predicted):
    return Answers(texts, {}, counts={"chexbert": corpus.label_counts(predicted, sets(1))})


def test_blocks_carry_chexbert_with_paired_intervals():
    truth = [p[1] for p in PAIRS]
    before, after = answers([p[0] for p in PAIRS], sets(0)), answers(truth, sets(1))
    out = block(before, after, truth, range(5), "greedy", SETTINGS)
    assert out.baseline["chexbert_micro_14"]["mean"] == pytest.approx(4 / 11)
    change = out.difference["chexbert_micro_14"]
    assert change["mean"] == pytest.approx(7 / 11) and change["low"] <= change["mean"] <= change["high"]
    assert out.aligned["corpus_bleu4"]["mean"] == pytest.approx(1, abs=1e-6)
    assert seed_values([after, before], truth)["chexbert_micro_5"] == pytest.approx([1, 1 / 3])
    found = finding_blocks(before, after, truth, "greedy", SETTINGS)
    assert found["chexbert/No Finding"].baseline["f1"]["mean"] == pytest.approx(2 / 3)
    assert found["chexbert/Cardiomegaly"].difference["f1"]["mean"] == 1
    assert "finding/No Finding" not in found  # the rules' table is as it was: findings alone


def test_without_chexbert_nothing_of_it_is_reported():
    truth = [p[1] for p in PAIRS]
    plain = Answers(truth, {})
    out = block(plain, plain, truth, range(5), "greedy", SETTINGS)
    assert not any("chexbert" in name for name in out.aligned)
    assert chexbert_counts(["rouge_l", "lc_finding_f1"], {}, truth, truth) == {}


def test_a_row_on_disk_gives_the_same_counts():
    made = counts_of(answers([p[0] for p in PAIRS], sets(0)), [p[1] for p in PAIRS])
    for i in range(5):
        back = corpus.read_row(row_counts(made, i))
        assert set(back) == {"chexpert_rule", "chexbert", "corpus_bleu"}
        assert all((back[f] == made[f][i]).all() for f in back)
