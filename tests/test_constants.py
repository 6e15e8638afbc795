"""The best constant text of a judge."""

import pytest

from chexalign.evaluation.controls import best_constants
from chexalign.judges import load
from chexalign.judges.contract import TextJudge
from chexalign.report.run.tables import constant_rows
from chexalign.scorecard.constants import STATEMENTS, best_constant, needs_a_model
from chexalign.scorecard.measure import constants

ILL = ["Small left effusion.", "Right lower lobe opacity.", "Bibasilar atelectasis.", "Cardiomegaly. Opacity."] * 5


def test_the_text_that_every_study_pays_for_is_found():
    """A judge that pays 1 for the word opacity: any candidate with it is best, and earns 1."""
    judge = TextJudge("t", "1", str.lower, lambda a, b: (float("opacity" in a), {}))
    found = best_constant(judge, ILL, ILL)
    assert "opacity" in found["text"].lower() and found["score"] == 1 and found["n"] == len(ILL)


def test_it_is_at_least_as_good_as_every_single_statement_and_the_same_each_time():
    judge = load("finding_f1")
    found = best_constant(judge, ILL, ILL)
    for text in STATEMENTS:
        known = [a.score for a in judge.score([text] * len(ILL), ILL) if a.score is not None]
        assert sum(known) / len(known) <= found["score"] + 1e-12
    assert found == best_constant(load("finding_f1"), ILL, ILL)


def test_the_kind_of_judge_decides_whether_it_is_searched_and_never_the_clock():
    cheap = ("finding_f1_weighted", "lc_rouge_l", "facts", "0.5*finding_f1 + 0.5*bleu4")
    costly = ("green", "lc_chexbert_f1[5]", "facts[SmolLM2]", "bertscore[minilm-l6:L6]", "0.5*finding_f1 + 0.5*visual")
    assert [needs_a_model(j) for j in (*cheap, *costly)] == [False] * 4 + [True] * 5
    assert set(constants(load("finding_f1"), ILL) or {}) == {"all", "abnormal"}


def test_a_run_names_the_constant_for_all_and_for_abnormal_studies():
    judge, references = load("finding_f1"), ["The lungs are clear.", *ILL]
    found = best_constants(judge, references, range(1, len(references)), ILL)
    for part, at in (("all", references), ("abnormal", ILL)):
        cell = found[part]
        earned = [a.score for a in judge.score([cell["text"]] * len(at), at)]
        assert cell["judge"] == "finding_f1" and cell["score"] == pytest.approx(sum(earned) / len(at))
    _, row = constant_rows(found)
    assert row["studies"] == "abnormal" and row["text"] == found["abnormal"]["text"]
    assert best_constants(judge, references, [], ILL).keys() == {"all"}


def test_a_judge_that_abstains_on_all_has_no_constant():
    assert best_constant(load("finding_f1"), ["Kein Erguss."] * 3, ILL)["score"] is None
