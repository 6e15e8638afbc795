"""The forms of a judge that other libraries call: an evaluate metric, verl's and ms-swift's rewards."""

import pytest

from chexalign.errors import RecipeError, WorkError
from chexalign.judges import load
from chexalign.judges.metric import metric
from chexalign.judges.swift import reward_class
from chexalign.judges.trl import reward_function
from chexalign.judges.verl import compute_score, compute_scores

REPORTS = ["Small left effusion.", "No pneumothorax.", "Clear lungs."]
REFERENCES = ["Left effusion.", "", "Clear lungs."]


def test_the_metric_gives_mean_scores_and_abstentions():
    scores = load("rouge_l").score(REPORTS, REFERENCES).scores
    found = metric("rouge_l").compute(predictions=REPORTS, references=REFERENCES)
    assert found == {"rouge_l": (scores[0] + scores[2]) / 2, "scores": scores, "abstained": 1, "n": 3}


def test_the_metric_takes_batches_and_forgets_them():
    whole, parts = metric("rouge_l"), metric("rouge_l")
    parts.add_batch(predictions=REPORTS[:2], references=REFERENCES[:2])
    parts.add(prediction=REPORTS[2], reference=REFERENCES[2])
    assert parts.compute() == whole.compute(predictions=REPORTS, references=REFERENCES)
    with pytest.raises(RecipeError, match="no predictions"):
        parts.compute()
    with pytest.raises(ValueError, match="1 predictions but 2 references"):
        parts.compute(predictions=["x"], references=["x", "y"])


def test_verl_gets_a_number_or_the_reason():
    first = load("rouge_l").score(REPORTS[:1], REFERENCES[:1])[0].score
    assert compute_score("cxr", REPORTS[0], REFERENCES[0], judge="rouge_l") == first
    with pytest.raises(WorkError, match="the reference is empty; set reward_kwargs.abstained"):
        compute_scores(["cxr"] * 3, REPORTS, REFERENCES, judge="rouge_l")
    assert compute_scores(["cxr"] * 3, REPORTS, REFERENCES, judge="rouge_l", abstained=0.0)[1] == 0


def test_ms_swift_and_trl_leave_abstentions_and_missing_texts_out():
    scores = load("rouge_l").score(REPORTS, REFERENCES).scores
    chats = [[{"role": "assistant", "content": text}] for text in REPORTS]
    reward = reward_class("rouge_l")()
    assert reward(chats, solution=REFERENCES) == scores == [scores[0], None, scores[2]]
    assert reward([None, REPORTS[2]], solution=["x", REFERENCES[2]]) == [None, scores[2]]
    assert reward_function("rouge_l")(["p"] * 2, REPORTS[:2], reference=["Left effusion.", None]) == [scores[0], None]
    with pytest.raises(RecipeError, match="no column 'solution'"):
        reward(chats, report=REFERENCES)


def test_the_format_reward_sees_tags_and_the_other_judge_the_body():
    line = "gate(format, rouge_l)"
    written = ["<report>Clear lungs.</report>", "Clear lungs."]
    assert reward_class(line)()(written, solution=["Clear lungs."] * 2) == [1.0, 0.0]
