"""finding_consistency: an impression against the findings it was written from."""

import pytest

from chexalign.errors import RecipeError
from chexalign.judges import load
from chexalign.records import Study

FINDINGS = (
    "Small left pleural effusion. Large right pneumothorax. Mild cardiomegaly. Calcified granuloma in the left lung."
)


def score(impression, findings=FINDINGS):
    study = Study("a", "a", "test", findings=findings)
    return load("finding_consistency").score([impression], ["not read"], [study])[0]


def test_by_hand():
    """Urgent pneumothorax weighs 1 and the agreed rest .1. Named: (s 1, u 0, o 0) → 1. Left out: (s 0, u 0, o 1) → .2 / 1.2."""
    assert score("Right pneumothorax.").score == 1
    assert score("No acute cardiopulmonary disease.").score == pytest.approx(0.2 / 1.2)


def test_what_is_not_urgent_may_be_left_out_and_detail_too():
    assert score("Pneumothorax.").score == 1
    assert score("Right pneumothorax and left effusion.").score == 1


def test_what_is_not_supported_costs():
    full = score("Right pneumothorax.")
    invented = score("Right pneumothorax. Left lower lobe pneumonia.")
    other_side = score("Right pneumothorax. Right pleural effusion.")
    assert invented.score < full.score and other_side.score < full.score
    assert [r["finding"] for r in invented.details["unsupported"]] == ["pneumonia"]
    assert score("Pneumonia.", "The lungs are clear. No pneumothorax.").score < 0.4


def test_a_denied_urgent_finding_is_left_out():
    answer = score("No pneumothorax.")
    assert answer.score == pytest.approx(0.2 / 1.2) and answer.details["left_out"][0]["denied"]


def test_normal_is_consistent_and_babble_is_not():
    assert score("No acute cardiopulmonary disease.", "The lungs are clear. Heart size is normal.").score == 1
    assert score("I am a helpful assistant.", "The lungs are clear.").score == 0
    assert score("", "The lungs are clear.").score == 0
    assert score("Normal chest.", "").error == "the reference is empty"


def test_it_needs_the_study():
    with pytest.raises(RecipeError, match="findings"):
        load("finding_consistency").score(["Clear."], ["Clear."])
