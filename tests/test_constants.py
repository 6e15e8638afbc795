"""The best constant text of a judge."""

from chexalign.judges import load
from chexalign.judges.contract import TextJudge
from chexalign.scorecard.constants import STATEMENTS, best_constant

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


def test_a_judge_that_abstains_on_all_has_no_constant():
    assert best_constant(load("finding_f1"), ["Kein Erguss."] * 3, ILL)["score"] is None
