"""Labels of a study's source as the truth, and FactS with a language model in two questions."""

import json
from dataclasses import replace

import pytest

from chexalign.errors import RecipeError
from chexalign.evaluation.answers import Answers, is_abnormal
from chexalign.evaluation.blocks import block
from chexalign.evaluation.counting import facts_line, facts_read, gold_counts
from chexalign.judges import load
from chexalign.labels.truth import study_labels
from chexalign.llm.reply import Reply
from chexalign.recipe.recipe import Evaluate, Recipe
from chexalign.records import Study
from chexalign.run.task import missing_section


def study(name="s", **labels):
    return Study(name, f"p{name}", "test", labels=labels)


GOLD = study(chexpert={"Edema": 1, "Pleural Effusion": 1, "Pneumothorax": 0, "Fracture": None})


def test_labels_are_found_where_sources_put_them():
    assert study_labels(GOLD)["Edema"] == 1 and study_labels(GOLD)["No Finding"] is None
    assert study_labels(study(Edema=1.0, Pneumonia=-1.0, Fracture=""))["Pneumonia"] == -1
    assert study_labels(study(gold={"Edema": 0}, chexpert={"Edema": 1})) == {
        **dict.fromkeys(study_labels(GOLD)),
        "Edema": 0,
    } | {"No Finding": 1}
    assert study_labels(study(mesh=["normal"])) is None
    with pytest.raises(ValueError, match="study s: label Edema is 'yes'"):
        study_labels(study(Edema="yes"))


@pytest.mark.parametrize("name", ["facts", "chexpert_rule_f1"])
def test_a_report_is_held_against_the_labels_and_no_report_is_needed(name):
    judge = load(name, truth="labels")
    answers = judge.score(["Pulmonary edema.", "I cannot interpret this image.", "Edema.", "Edema."], [""] * 4, [
        GOLD, GOLD, study(), study(Edema="yes"),
    ])  # fmt: skip
    assert answers[0].details["tp"] == ["Edema"] and answers[0].details["fn"] == ["Pleural Effusion"]
    assert answers[0].score == pytest.approx({"facts": 5 * 0.5 / (4 * 1 + 0.5), "chexpert_rule_f1": 2 / 3}[name])
    assert answers[1].score == 0 and "refusal" in answers[1].details["note"]
    assert "has no labels" in answers[2].error and "a label is 1, 0, -1 or empty" in answers[3].error
    assert judge.score(["Edema."], [""])[0].error.startswith("no study was given")
    assert "truth" in judge.version and judge.version != load(name).version


def two_steps(*replies):
    judge = load("facts", url="http://127.0.0.1:1/v1", model="m", steps="two")
    asked, waiting = [], [Reply(json.dumps(r) if not isinstance(r, str) else r) for r in replies]
    judge.ask = lambda prompts: [(asked.append(p), waiting.pop(0))[1] for p in prompts]
    return judge, asked


def test_facts_are_extracted_and_then_entailed():
    entailed = {
        "labels": {"Edema": {"status": "present", "facts": [1]}, "Pneumothorax": {"status": "absent", "facts": [2]}}
    }
    judge, asked = two_steps({"facts": ["mild edema", "no pneumothorax"]}, entailed)
    judge.truth = "labels"
    answer = judge.score(["Mild edema. No pneumothorax."], [""], [GOLD])[0]
    assert answer.details["tp"] == ["Edema"] and answer.details["fn"] == ["Pleural Effusion"]
    assert answer.details["facts"] == [
        {"fact": "mild edema", "labels": {"Edema": "present"}},
        {"fact": "no pneumothorax", "labels": {"Pneumothorax": "absent"}},
    ]
    assert len(asked) == 2 and "1. mild edema\n2. no pneumothorax" in asked[1][0][1]
    assert facts_read(answer.details) == {
        "Edema": ["mild edema (present)"],
        "Pneumothorax": ["no pneumothorax (absent)"],
    }


@pytest.mark.parametrize(
    ("replies", "says"),
    [
        (["no json"], "parse_failed: no JSON"),
        ([{"facts": [1]}], 'no list "facts" of texts'),
        ([{"facts": ["a"]}, {"labels": {"Edema": {"status": "present", "facts": [2]}}}], "not numbers from 1 to 1"),
        ([{"facts": ["a"]}, {"labels": {"Oedema": {"status": "present"}}}], "no such label or status"),
    ],
)
def test_an_answer_that_is_not_as_asked_for_abstains(replies, says):
    judge, _ = two_steps(*replies)
    judge.truth = "labels"
    answer = judge.score(["Mild edema is seen."], [""], [GOLD])[0]
    assert answer.score is None and says in answer.error


def test_two_steps_need_a_model_and_are_another_version():
    with pytest.raises(RecipeError, match="steps two asks a language model twice"):
        load("facts", steps="two")
    one = load("facts", url="http://127.0.0.1:1/v1", model="m")
    assert one.version != two_steps()[0].version


def test_the_line_with_facts_is_found_in_a_recipe():
    assert facts_line(["rouge_l", "0.5*lc_facts + 0.5*rouge_l"]) == "0.5*lc_facts + 0.5*rouge_l"
    assert facts_line(["rouge_l"]) is None


def test_a_gold_study_without_a_report_is_evaluated_against_its_labels():
    recipe = Recipe.model_validate({"name": "x", "studies": {"source": "phantom"}, "warmup": {}})
    reported = Study("r", "pr", "test", findings="No acute disease.")
    assert missing_section(recipe, GOLD) is None and missing_section(recipe, Study("b", "pb", "test")) == "findings"
    assert missing_section(recipe, replace(GOLD, split="train")) == "findings"
    assert is_abnormal("", GOLD) and not is_abnormal("No acute disease.", reported)
    counts = gold_counts(["Pulmonary edema.", "Clear lungs."], ["", "No acute disease."], [GOLD, reported])[
        "chexpert_rule"
    ]
    both = Answers(["Pulmonary edema.", "Clear lungs."], {}, counts={"chexpert_rule": counts})
    found = block(both, both, ["", "No acute disease."], range(2), "greedy", Evaluate(bootstrap=20))
    assert found.aligned["chexpert_rule_micro13"]["mean"] == pytest.approx(2 / 3)  # tp Edema, fn Pleural Effusion
    assert gold_counts(["x"], ["Clear."], [reported]) == {}
