"""The over-optimisation meter: its text measures by hand, and what it says of a policy that repeats itself."""

import pytest

from chexalign.evaluation.answers import Answers, Decoded, Evaluated
from chexalign.evaluation.over_optimisation import (
    claims_change,
    duplicated,
    measure,
    saw_earlier,
    trained_on,
    without_duplicates,
)
from chexalign.judges import load
from chexalign.recipe.files import load_recipe
from chexalign.records import Study
from chexalign.report.run.gaming import gaming_section


def study(i, *views):
    return Study(f"s{i}", f"p{i}", "test", tuple((f"{i}{v}.png", v) for v in views), findings="x")


@pytest.mark.parametrize(
    ("text", "share", "short"),
    [
        ("Clear lungs. No effusion. clear  lungs! Clear lungs.", 0.5, "Clear lungs. No effusion."),
        ("Clear lungs.\nNo effusion.", 0.0, "Clear lungs.\nNo effusion."),
        ("", 0.0, ""),
        ("- Edema\n- Edema\n", 0.5, "- Edema"),
    ],
)
def test_duplicated_sentences_by_hand(text, share, short):
    assert duplicated(text) == pytest.approx(share)
    assert without_duplicates(text) == short and duplicated(short) == 0


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("The effusion is unchanged.", True),
        ("Interval removal of the tube.", True),
        ("Stable cardiomegaly.", True),
        ("No new consolidation.", True),
        ("The edema has improved compared with the prior study.", True),
        ("No prior studies for comparison. Clear lungs.", False),
        ("There are no previous radiographs. Small effusion.", False),
        ("Small left effusion. Intervertebral discs are normal.", False),
        ("No comparison. Worsening edema.", True),
    ],
)
def test_claims_of_change(text, claims):
    assert claims_change(text) is claims


def test_what_the_policy_saw_and_what_training_looked_at():
    assert saw_earlier(study(1, "frontal", "prior"), 2) and not saw_earlier(study(1, "frontal", "prior"), 1)
    recipe = load_recipe("tiny", ["score.judges=[lc_rouge_l]", "pairs.judge=lc_rouge_l"])
    assert trained_on(recipe) == ["rouge_l"]


def answers(texts, references, judges):
    return Answers(texts, {j: load(j).score(texts, references).scores for j in judges})


def test_a_policy_that_repeats_itself_is_told_by_hand():
    judges = ["rouge_l", "chexpert_rule_f1"]
    evaluated = [f"evaluate.judges=[{', '.join(judges)}]", "evaluate.headline=[rouge_l]"]
    recipe = load_recipe("tiny", ["score.judges=[rouge_l]", "pairs.judge=rouge_l", *evaluated])
    references = ["Small left effusion.", "Clear lungs."]
    before = answers(["Small left effusion.", "Clear lungs and heart."], references, judges)
    after = answers(["Left effusion. Left effusion.", "Unchanged clear lungs."], references, judges)
    studies = [study(0, "frontal", "prior"), study(1, "frontal")]
    both = {Decoded("baseline", "temperature_1"): before, Decoded("aligned", "temperature_1"): after}
    found = measure(recipe, Evaluated(studies, references, both), 2)
    signs = found["signs"]
    assert signs["duplicated_sentences"]["aligned"]["mean"] == 0.25  # one of two sentences in one of two reports
    assert signs["change_without_earlier_image"]["aligned"] | {} == {
        **signs["change_without_earlier_image"]["aligned"], "mean": 1.0, "n": 1, "abstained": 1,
    }  # fmt: skip
    cells = found["without_duplicates"]["rouge_l"]
    want = [load("rouge_l").score(["Left effusion."], references[:1])[0].score, after.scores["rouge_l"][1]]
    assert cells["deduplicated"]["mean"] == pytest.approx(sum(want) / 2) and cells["difference"]["mean"] > 0
    assert [(r["judge"], r["seen"]) for r in found["judges"]] == [("rouge_l", True), ("chexpert_rule_f1", False)]
    assert (
        found["judges"][1]["gain_in_sd"]["mean"] is None
    )  # the baseline's scores are all equal: no unit to measure in


def test_the_page_shows_it():
    cells = {
        k: {"mean": m, "low": m, "high": m, "n": 40}
        for k, m in (("baseline", 0.1), ("aligned", 0.3), ("difference", 0.2))
    }
    section = gaming_section(
        {"signs": {"repeated_4grams": cells}, "trained_on": ["green"], "n_studies": 40, "judges": []}
    )
    assert section["trained_on"] == "green" and section["signs"][0].symbol == "▲"
    assert gaming_section(None) is None
