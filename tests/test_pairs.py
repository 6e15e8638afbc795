import json

import pytest

from chexalign.records import Completion
from chexalign.stages.pairs import best_and_worst, describe


def scored(*scores):
    return [(Completion("s", j, f"t{j}", -1.0, 2, "stop", "p", 0), s) for j, s in enumerate(scores)]


def test_best_against_worst():
    best, worst = best_and_worst(scored(0.2, 0.9, 0.1, 0.5), 1e-8)
    assert (best[0].sample_index, worst[0].sample_index) == (1, 2)


def test_ties_inside_the_group_go_to_the_first():
    best, worst = best_and_worst(scored(0.5, 0.9, 0.9, 0.5), 1e-8)
    assert (best[0].sample_index, worst[0].sample_index) == (1, 0)


def test_a_margin_that_is_not_exceeded_makes_no_pair():
    assert best_and_worst(scored(0.5, 0.5, 0.5), 1e-8) is None
    assert best_and_worst(scored(0.5, 0.6), 0.1 + 1e-12) is None
    assert best_and_worst(scored(0.5, 0.6), 0.05) is not None


def test_describe_by_hand():
    assert describe([1, 2, 6]) == pytest.approx({"mean": 3, "median": 2, "sd": 7**0.5})
    assert describe([4]) == {"mean": 4, "median": 4, "sd": 0.0}


def test_trl_rows_are_conversational(tmp_path):
    from chexalign.policies.prompt import messages
    from chexalign.records import Study

    study = Study("s", "p", "train", (("a.png", "frontal"), ("b.png", "lateral")), indication="Cough.")
    turn = messages(study, "Given {indication}, write.", 1)[0]
    assert turn["role"] == "user"
    assert turn["content"] == [{"type": "image"}, {"type": "text", "text": "Given Cough., write."}]
    assert json.loads(json.dumps(turn)) == turn


def test_rules_by_hand():
    from chexalign.stages.pairs import SAME, TIED, best_worst, reference_loser, reference_worst

    three = scored(0.5, 0.9, 0.1)
    assert best_worst(three, "r", 0).chosen[0].sample_index == 1
    assert best_worst(three, "r", 0).rejected[0].sample_index == 2
    loser = reference_loser(three, "r", 0)  # of the first two alone
    assert loser.chosen is None and loser.rejected[0].sample_index == 0
    worst = reference_worst(three, "r", 0)
    assert worst.chosen is None and worst.rejected[0].sample_index == 2
    tie = scored(0.5, 0.5)
    assert best_worst(tie, "r", 0) == reference_loser(tie, "r", 0) == TIED
    assert reference_worst(tie, "r", 0).rejected[0].sample_index == 0
    assert reference_worst(tie, " t0", 0) == SAME
    assert reference_loser(scored(0.1, 0.2), "t0 ", 0) == SAME
