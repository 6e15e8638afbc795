"""What models write around a report goes, statuses become sentences, and an ordinary report stays as it is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexalign.cleaning import MARKUP, clean
from chexalign.judges import load
from chexalign.judges.combine import length_ratio
from chexalign.judges.contract import context_of
from chexalign.judges.registry import JUDGES
from chexalign.policies.presets import preset_for

CASES = {
    "[Breathing: Pneumothorax] None.": "No pneumothorax.",
    "[Breathing: Lungs] None.": "",
    "[Cardiac: Heart size] Normal.": "Heart size normal.",
    "[Breathing: Pneumothorax] Present. [Breathing: Lungs] There is **no** consolidation.": "Pneumothorax. There is no "
    "consolidation.",
    "<think>Maybe a pneumothorax.</think> The lungs are clear.": "The lungs are clear.",
    "Maybe a pneumothorax.</think> The lungs are clear.": "The lungs are clear.",
    "The lungs are clear. <think>But perhaps": "The lungs are clear.",
    '```json\n{"findings": "Small left effusion.", "impression": "CHF"}\n```': "Findings: Small left effusion. "
    "Impression: CHF.",
    '{"effusion": false, "pneumothorax": true, "cardiomegaly": "absent", "edema": null, "pneumonia": -1}': "No effusion. "
    "Pneumothorax. No cardiomegaly. Possible pneumonia.",
    "{'pleuralEffusion': True, 'No Finding': False}": "Pleural Effusion.",
    '[{"finding": "effusion", "present": true, "side": "left", "size": "small"}]': "Small left effusion.",
    '{"report": "The lungs are clear."}': "The lungs are clear.",
    "| Finding | Present |\n|---|---|\n| Effusion | no |\n| Pneumothorax | yes |": "No effusion.\nPneumothorax.",
    "| Finding | Present | Side |\n|---|---|---|\n| Effusion | yes | left |": "Left Effusion.",
    "<p>No <b>pneumothorax</b>.</p><p>Small&nbsp;left effusion.</p>": "No pneumothorax.\nSmall left effusion.",
    "<table><tr><td>Effusion</td><td>no</td></tr></table>": "No effusion.",
    "<findings>Clear.</findings><impression>Normal.</impression>": "Findings: Clear.\nImpression: Normal.",
    "## Findings\n* **No** effusion": "Findings\n- No effusion",
    "Ｎｏ ｅｆｆｕｓｉｏｎ": "No effusion",
    "pneumo\u00adthorax": "pneumothorax",
    "<report>Clear lungs.</report>": "Clear lungs.",
}
PLAIN = [
    "A nodule of <5 mm & a cyst > 3 cm.",
    "1. Left PICC.\n2. Edema [see above].",
    "",
    "Heart - normal.\n- No effusion.",
]
DRESSED = [  # each form holds the same report
    ("Small left pleural effusion. No pneumothorax.", form)
    for form in (
        "```\nSmall left pleural effusion. No pneumothorax.\n```",
        "<think>Right pneumothorax?</think>Small left pleural effusion. No pneumothorax.",
        "Small left **pleural effusion**. No pneumothorax.",
        "<p>Small left pleural effusion. No pneumothorax.</p>",
        '{"report": "Small left pleural effusion. No pneumothorax."}',
        "[Breathing: Pleural Effusion] Small left pleural effusion. [Breathing: Pneumothorax] No pneumothorax.",
        "[Breathing: Pleural Effusion] Small left pleural effusion. [Breathing: Pneumothorax] None.",
    )
]


@pytest.mark.parametrize(("written", "report"), CASES.items())
def test_each_form_is_its_report(written, report):
    assert clean(written) == report


@pytest.mark.parametrize("text", PLAIN)
def test_an_ordinary_report_is_unchanged(text):
    assert clean(text) is text or clean(text) == text


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab<>[]{}:|`*#\n .\"'&;/p-", max_size=40))
def test_cleaning_twice_is_cleaning_once(text):
    assert clean(clean(text)) == clean(text)


@pytest.mark.parametrize("name", [n for n, e in JUDGES.items() if e.needs == "nothing" and n != "format"])
def test_no_judge_sees_the_markup(name):
    judge = load(name)
    if context_of(judge):
        return
    reference = "Left pleural effusion. No pneumothorax."
    for plain, written in DRESSED:
        for line in (name, f"lc_{name}"):
            bare, dressed = load(line).score([plain, written], [reference] * 2)
            assert dressed == bare, (line, written)


def test_words_are_counted_without_markup():
    plain, written = DRESSED[-2]
    judge = load("lc_rouge_l")
    ratios = [a.details["length_ratio"] for a in judge.score([written], ["Left effusion."])]
    assert ratios == [length_ratio(plain, "Left effusion.")]


def test_a_denial_under_a_heading_is_no_pneumothorax():
    denied = load("chexpert_rule_f1").score(["[Breathing: Pneumothorax] None."], ["Left pneumothorax."])[0]
    assert denied.score == 0 and denied.details.get("tp", []) == []


def test_the_form_judge_sees_what_was_written():
    fenced, plain = load("format").score(["```<report>Clear.</report>```", "<report>Clear.</report>"], ["x", "x"])
    assert (fenced.score, plain.score) == (0, 1)


def test_the_headings_rule_comes_with_the_models_that_write_headings():
    assert "headings" in preset_for("StanfordAIMI/CheXagent-2-3b").clean
    assert preset_for("Qwen/Qwen2.5-VL-3B-Instruct").clean == MARKUP
