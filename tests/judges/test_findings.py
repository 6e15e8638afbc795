"""finding_f1 and chexpert_rule_f1: worked examples and what each must see."""

import pytest

from chexalign.judges import load
from chexalign.judges.findings import units

EFFUSION = "Small left pleural effusion."


def judge(name, report, reference):
    return load(name).score([report], [reference])[0]


def finding(report, reference=EFFUSION):
    return judge("finding_f1", report, reference).score


def test_units_are_findings_by_side():
    found = units("Small bilateral effusions. Mild cardiomegaly. No pneumothorax. Possible right basilar atelectasis.")
    rows = [(u.label, u.side, u.certain, sorted(u.zones), u.level) for u in found]
    assert rows == [
        ("Cardiomegaly", None, True, [], 1),
        ("Atelectasis", "right", False, ["lower"], None),
        ("Pleural Effusion", "left", True, [], 1),
        ("Pleural Effusion", "right", True, [], 1),
    ]


def test_a_mention_without_a_side_joins_the_side_named_elsewhere():
    assert units("Moderate effusion. Left pleural effusion.") == units("Moderate left pleural effusion.")


@pytest.mark.parametrize(
    ("report", "expected", "why"),
    [
        ("Small left pleural effusion.", 1, "identity"),
        ("There is a tiny effusion on the left.", 1, "paraphrase"),
        ("Small right pleural effusion.", 2 / 3, "(finding 1 + side 0 + size 1) / 3"),
        ("Large left pleural effusion.", 2 / 3, "(1 + 1 + 0) / 3"),
        ("Pleural effusion.", 1 / 3, "(1 + 0 + 0) / 3"),
        ("Possible small left pleural effusion.", 2.5 / 3, "(0.5 + 1 + 1) / 3"),
        ("Small left pleural effusion. Edema.", 2 / 3, "C 1, units 2 + 1"),
        ("Small bilateral pleural effusions.", 2 / 3, "C 1, units 2 + 1"),
        ("No pleural effusion.", 0, "flip"),
        ("Edema.", 0, "another finding"),
        ("Lungs are clear.", 0, "omission"),
    ],
)
def test_worked_examples(report, expected, why):
    """F1 = 2·C / (n_report + n_reference) against one unit: left effusion, small."""
    assert finding(report) == pytest.approx(expected), why


def test_two_findings_one_of_them_omitted():
    """C = 1 of 1 + 2 units: 2/3."""
    assert finding("Mild cardiomegaly.", "Mild cardiomegaly. Edema.") == pytest.approx(2 / 3)


def test_both_sides_are_paired_in_the_best_way():
    reference = "Small left effusion. Large right effusion."
    assert finding("Large right effusion. Small left effusion.", reference) == 1
    assert finding("Large left effusion. Small right effusion.", reference) == pytest.approx(2 / 3)


def test_detail_that_the_reference_does_not_state_costs_nothing():
    assert finding("Left pleural effusion. Right lower lobe consolidation.", "Pleural effusion. Consolidation.") == 1
    assert finding("Small bilateral effusions.", "Pleural effusions.") == 1


def test_a_report_that_leaves_out_both_sides_earns_half():
    """Two units of credit (1 + 0) / 2 each: 2·1 / (2 + 2)."""
    assert finding("Pleural effusions.", "Bilateral pleural effusions.") == pytest.approx(1 / 2)


def test_zones_overlap_and_near_synonyms_agree():
    assert finding("Right basilar opacity.", "Right lower lobe opacity.") == 1
    assert finding("Right upper lobe opacity.", "Right lower lobe opacity.") == pytest.approx(2 / 3)


def test_normal_against_normal_is_full_marks():
    for name in ("finding_f1", "chexpert_rule_f1"):
        assert judge(name, "Lungs are clear.", "No acute disease. No effusion.").score == 1


def test_order_and_repetition_do_not_matter_to_the_plain_judges():
    sentences = ["Small left effusion.", "Mild cardiomegaly.", "No pneumothorax.", "Possible right pneumonia."]
    text = " ".join(sentences)
    for name in ("finding_f1", "chexpert_rule_f1"):
        assert judge(name, " ".join(reversed(sentences)), text).score == 1
        assert judge(name, f"{text} {text} {text}", text).score == 1
        assert judge("lc_" + name, f"{text} {text} {text}", text).score == pytest.approx(1 / 3)


def test_finding_f1_shows_its_units_and_credits():
    details = judge("finding_f1", "Small right effusion. Edema.", EFFUSION).details
    assert details["matches"] == [
        {"label": "Pleural Effusion", "report_side": "right", "side": "left", "credit": pytest.approx(2 / 3)}
    ]
    assert [u["label"] for u in details["report"]] == ["Edema", "Pleural Effusion"]
    assert details["reference"] == [
        {"label": "Pleural Effusion", "side": "left", "certain": True, "level": 1, "zones": []}
    ]


def test_chexpert_rule_f1_by_hand():
    """{Edema, Pleural Effusion} against {Edema, Cardiomegaly, Atelectasis (uncertain)}: 2·1 / (2 + 3)."""
    answer = judge("chexpert_rule_f1", "Edema. Effusion.", "Edema. Cardiomegaly. Possible atelectasis. No pneumonia.")
    assert answer.score == pytest.approx(2 / 5)
    assert answer.details == {
        "tp": ["Edema"],
        "fp": ["Pleural Effusion"],
        "fn": ["Atelectasis", "Cardiomegaly"],
        "unread": 0,
    }


def test_chexpert_rule_f1_is_blind_to_side_and_size_and_sees_a_flip():
    assert judge("chexpert_rule_f1", "Large right effusion.", EFFUSION).score == 1
    assert judge("chexpert_rule_f1", "No pleural effusion.", EFFUSION).score == 0


def test_the_judges_of_findings_put_a_paraphrase_above_a_flip_and_words_do_not():
    reference, paraphrase, flip = (
        "No cardiomegaly. Edema.",
        "The heart is not enlarged. Pulmonary edema.",
        "Cardiomegaly. No edema.",
    )
    for name in ("finding_f1", "chexpert_rule_f1"):
        assert judge(name, paraphrase, reference).score == 1 and judge(name, flip, reference).score == 0
    assert judge("rouge_l", paraphrase, reference).score < judge("rouge_l", flip, reference).score


def test_five_classes_agree_where_they_should():
    """Five pairs of the kind the CheXbert tools are tested with: same, missed, different, same, same."""
    five = {"Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion"}
    pairs = [
        ("No effusion. The heart is of normal size.", "No pleural effusions."),
        ("Heart size is normal.", "The heart is enlarged."),
        ("Mild edema has increased, and there is left basal atelectasis.", "No pneumonia. Unchanged cardiomegaly."),
        ("Improved consolidation in the right lower lung.", "Improved consolidation in the right lower lung."),
        ("Blunted left angle although no definite effusion is seen.", "No acute disease. Small nodules are not seen."),
    ]
    agree = []
    for report, reference in pairs:
        details = judge("chexpert_rule_f1", report, reference).details
        agree.append(int(not five & {*details["fp"], *details["fn"]}))
    assert agree == [1, 0, 0, 1, 1]
