"""FactS: the F-beta by hand, the offline reader, and the reader of a model's answer."""

import json

import pytest
from tests.judges.llm_server import answer, serve

from chexalign.errors import Abstain, RecipeError
from chexalign.judges import load
from chexalign.judges.prompted.facts import f_beta, read_by_rules, read_reply
from chexalign.llm.reply import Reply


@pytest.mark.parametrize(
    ("tp", "fp", "fn", "beta", "expected"),
    [
        (1, 1, 1, 2.0, 0.5),  # P = R = 1/2
        (2, 2, 0, 2.0, 5 * 0.5 / (4 * 0.5 + 1)),  # P 1/2, R 1: 5/6
        (2, 0, 2, 2.0, 5 * 0.5 / (4 * 1 + 0.5)),  # P 1, R 1/2: 5/9
        (2, 2, 0, 1.0, 2 / 3),
        (3, 0, 0, 2.0, 1.0),
    ],
)
def test_f_beta_by_hand(tp, fp, fn, beta, expected):
    assert f_beta(tp, fp, fn, beta=beta, eps=0)[2] == pytest.approx(expected, abs=1e-12)
    assert f_beta(tp, fp, fn, beta=beta, eps=1e-8)[2] == pytest.approx(expected, abs=1e-7)


def test_f_beta_agrees_with_scikit_learn():
    from sklearn.metrics import fbeta_score

    for tp, fp, fn in ((3, 1, 2), (1, 4, 0), (5, 0, 7)):
        truth, said = [1] * (tp + fn) + [0] * fp, [1] * tp + [0] * fn + [1] * fp
        for beta in (0.5, 1, 2):
            assert f_beta(tp, fp, fn, beta=beta, eps=0)[2] == pytest.approx(fbeta_score(truth, said, beta=beta))


def test_no_true_positive_is_exactly_zero_and_nothing_to_find_is_one():
    assert f_beta(0, 3, 0, beta=2, eps=1e-8)[2] == 0.0 == f_beta(0, 0, 2, beta=2, eps=1e-8)[2]
    assert f_beta(0, 0, 0, beta=2, eps=1e-8) == (1, 1, 1)


def test_offline_by_hand():
    judge = load("facts")
    verdict = judge.score(["Small left effusion, but no pneumothorax. Old rib fracture."], ["Effusion. Cardiomegaly."])[
        0
    ]
    details = verdict.details
    assert (details["tp"], details["fp"], details["fn"]) == (["Pleural Effusion"], ["Fracture"], ["Cardiomegaly"])
    assert verdict.score == pytest.approx(0.5) == details["precision"] == details["recall"]
    assert details["facts"] == [
        {"fact": "Small left effusion", "labels": {"Pleural Effusion": "present"}},
        {"fact": "but no pneumothorax.", "labels": {"Pneumothorax": "absent"}},
        {"fact": "Old rib fracture.", "labels": {"Fracture": "present"}},
    ]


def test_a_contradiction_is_a_false_positive_and_silence_is_not():
    judge = load("facts", beta=1.0)
    reference = "Pleural effusion. Cardiomegaly."
    silent, denied = judge.score(["Cardiomegaly."] * 1 + ["Cardiomegaly. No pleural effusion."], [reference] * 2)
    assert silent.details["fp"] == [] and denied.details["fp"] == denied.details["contradicted"] == ["Pleural Effusion"]
    assert silent.score == pytest.approx(2 / 3) and denied.score == pytest.approx(1 / 2)


def test_the_normal_template():
    normal, ill = "No acute cardiopulmonary abnormality.", "Large left pleural effusion."
    assert [a.score for a in load("facts").score([normal] * 2, [normal, ill])] == [1.0, 0.0]
    fourteen = load("facts", no_finding=True).score([normal] * 2, [normal, ill])
    assert (
        fourteen[0].score == pytest.approx(1) and fourteen[0].details["tp"] == ["No Finding"] and fourteen[1].score == 0
    )
    assert load("facts").score([ill], [normal])[0].score == 0


def test_doubt_counts_as_the_option_says():
    reference, report = "Pneumonia.", "Possible pneumonia."
    assert load("facts").score([report], [reference])[0].score == pytest.approx(1)
    assert load("facts", uncertain="negative").score([report], [reference])[0].score == 0


def test_beta_above_one_favours_recall_and_the_details_show_the_price():
    over, under = "Effusion. Edema. Fracture. Pneumonia.", "Effusion."
    reference = "Effusion. Edema."
    two = [a.score for a in load("facts").score([over, under], [reference] * 2)]
    half = [a.score for a in load("facts", beta=0.5).score([over, under], [reference] * 2)]
    assert two[0] > two[1] and half[0] < half[1]
    assert load("facts").score([over], [reference])[0].details["precision"] == pytest.approx(0.5)


def test_wrong_settings():
    with pytest.raises(RecipeError, match="beta is 0"):
        load("facts", beta=0)


def test_every_mention_is_in_one_fact():
    text = "1. Left PICC ends in the SVC.\n2. Moderate edema; heart 2.5 cm too large, whereas no fracture."
    sheet = read_by_rules(text)
    labels = {label for fact in sheet.facts for label in fact["labels"]}
    assert labels == {label for label, status in sheet.labels.items() if status is not None}
    assert " ".join(f["fact"] for f in sheet.facts).replace(" ", "") == text.replace("\n", "").replace(" ", "").replace(
        ",whereas", "whereas"
    )


def reply(facts):
    return Reply(json.dumps({"facts": facts}))


def test_a_models_answer_is_summed_up_by_chexperts_rule():
    rows = [("a", {"edema": "Absent"}), ("b", {"Edema": "uncertain"}), ("c", {"Support Devices": "present"}), ("d", {})]
    sheet = read_reply(reply([{"fact": f, "labels": labels} for f, labels in rows]))
    assert sheet.labels["Edema"] == -1 and sheet.labels["Support Devices"] == 1 and sheet.labels["No Finding"] is None
    assert read_reply(reply([])).labels["No Finding"] == 1


@pytest.mark.parametrize(
    "facts",
    [
        None,
        [1],
        [{"labels": {}}],
        [{"fact": "x", "labels": {"Hernia": "present"}}],
        [{"fact": "x", "labels": {"Edema": "yes"}}],
    ],
)
def test_an_answer_that_is_not_as_asked_is_a_parse_failure(facts):
    failed = read_reply(reply(facts))
    assert isinstance(failed, Abstain) and str(failed).startswith("parse_failed: ")


def test_with_a_model_each_text_is_asked_once():
    def behave(number, body):
        text = body["messages"][0]["content"].split("Report:\n")[1].split("\n")[0]
        if text == "garbage":
            return answer("no json")
        status = "absent" if text.startswith("No") else "present"
        return answer(json.dumps({"facts": [{"fact": text, "labels": {"Pleural Effusion": status}}]}))

    with serve(behave) as served:
        judge = load("facts", url=served.url, model="m")
        reports = ["Effusion.", "No effusion.", "garbage", "Effusion.", ""]
        answers = judge.score(reports, ["Left effusion."] * 4 + ["Left effusion."])
        assert [a.score for a in answers] == [pytest.approx(1), 0.0, None, pytest.approx(1), 0.0]
        assert len(served.bodies) == 4 and answers[2].error.startswith("the report: parse_failed")
        judge.score(["Effusion."], ["Left effusion."])
        assert len(served.bodies) == 4  # the reference was read once for the run
        assert judge.score(["Effusion."], ["garbage"])[0].error.startswith("the reference: parse_failed")
        assert judge.name == "facts[m]" and "prompt" in judge.version and "rules" in load("facts").version
