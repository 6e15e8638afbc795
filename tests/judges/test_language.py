"""How radiologists write: negation around the noun, answers, lists, doubt, history, sides, measures, spelling."""

import pytest

from chexalign.judges import load
from chexalign.labels import find_mentions, label_report
from chexalign.labels.plain import plain

SAID = [  # text, label, status
    ("Edema: none.", "Edema", 0),
    ("Fracture - negative.", "Fracture", 0),
    ("Pneumothorax (none).", "Pneumothorax", 0),
    ("Nodule: nil", "Lung Lesion", 0),
    ("Edema: yes, nodule: no", "Edema", 1),
    ("Edema: yes, nodule: no", "Lung Lesion", 0),
    ("Consolidation has been ruled out.", "Consolidation", 0),
    ("Pneumonia is excluded.", "Pneumonia", 0),
    ("There aren't any nodules.", "Lung Lesion", 0),
    ("I don't see a fracture.", "Fracture", 0),
    ("A nodule we cannot identify.", "Lung Lesion", 0),
    ("Edema has never developed.", "Edema", 0),
    ("The consolidation hasn't cleared.", "Consolidation", 1),
    ("There is no evidence that the left effusion has cleared.", "Pleural Effusion", 1),
    ("Not without mild edema.", "Edema", 1),
    ("No significant improvement in the left consolidation.", "Consolidation", 1),
    ("No further effusion progression.", "Pleural Effusion", 1),
    ("Edema versus pneumonia.", "Edema", -1),
    ("Pneumonia remains in the differential.", "Pneumonia", -1),
    ("?LLL consolidation", "Consolidation", -1),
    ("The view does not permit exclusion of a fracture.", "Fracture", -1),
    ("Favor atelectasis over pneumonia.", "Pneumonia", 0),
    ("Findings argue against pneumonia.", "Pneumonia", 0),
    ("History: CHF. Findings: No edema.", "Edema", 0),
    ("Comparison: CT with a left nodule. Findings: No nodule.", "Lung Lesion", 0),
    ("no fracture\nnodule in the left apex", "Lung Lesion", 1),
    ("a) no edema b) left nodule", "Lung Lesion", 1),
    ("No edema<br>left nodule", "Lung Lesion", 1),
    ("| finding | seen |\n|---|---|\n| nodule | yes |\n| edema | no |", "Lung Lesion", 1),
    ("| finding | seen |\n|---|---|\n| nodule | yes |\n| edema | no |", "Edema", 0),
    ('{"nodule": true, "edema": false}', "Lung Lesion", 1),
    ('{"nodule": true, "edema": false}', "Edema", 0),
    ("(+) nodule (-) edema", "Edema", 0),
    ("Pulmonary oedema.", "Edema", 1),
    ("Haemothorax on the right.", "Pleural Effusion", 1),
    ("PNA in the RML.", "Pneumonia", 1),
    ("PPM in situ.", "Support Devices", 1),
    ("Left plueral effuson.", "Pleural Effusion", 1),
    ("Noconsolidation.", "Consolidation", 0),
    ("The pelvic cavity is not shown.", "Lung Lesion", None),
    ("Knee joint effusion.", "Pleural Effusion", None),
    ("Interval extubation.", "Support Devices", 0),
    ("Right chest tube has been withdrawn.", "Support Devices", 0),
]


@pytest.mark.parametrize(("text", "label", "status"), SAID)
def test_a_sentence_says(text, label, status):
    assert label_report(text)[label] == status


def places(text, label):
    return {(m.side, m.zone, m.size) for m in find_mentions(text) if m.label == label}


def test_one_noun_for_two_places_is_two_findings():
    assert places("Small right and large left effusions.", "Pleural Effusion") == {
        ("right", None, "small"),
        ("left", None, "large"),
    }
    assert places("Right upper and left lower lobe opacities.", "Lung Opacity") == {
        ("right", "upper", None),
        ("left", "lower", None),
    }
    assert places("Effusion on the left and right pneumothorax.", "Pleural Effusion") == {("left", None, None)}
    assert places("Rt effusion, lt base clear.", "Pleural Effusion") == {("right", None, None)}


def test_a_measure_is_the_one_of_today_and_the_largest_of_its_dimensions():
    sizes = {t: find_mentions(t)[0].size_mm for t in ("Mass, formerly 1 cm, now 3 cm.", "2 x 3 cm mass.", "Mass.")}
    assert list(sizes.values()) == [30, 30, None]


def test_a_mention_stands_where_the_text_as_given_has_it():
    for text in ("<b>Left</b> effu\u00adsion: yes.", "1) no edema 2) left effusion", '{"effusion": true}'):
        m = next(m for m in find_mentions(text) if m.label == "Pleural Effusion")
        assert text[m.start : m.end].replace("\u00ad", "") == "effusion" and m.status == 1
    assert plain("The lungs are clear.") == ("The lungs are clear.", None)


SHORTS = ("finding_f1_weighted", "finding_f1", "chexpert_rule_f1", "facts")


@pytest.mark.parametrize("name", SHORTS)
def test_saying_both_is_not_full_marks_and_a_limited_denial_is_no_contradiction(name):
    judge = load(name)
    both = judge.score(["No effusion. Right effusion."], ["Right effusion."])[0]
    assert both.score < 0.9 and both.details["contradicted"]
    fine = "No large effusion. Small left effusion."
    assert judge.score([fine], [fine])[0].score == pytest.approx(1)
    assert judge.score(["No large effusion. Left effusion."], ["Left effusion."])[0].score == pytest.approx(1)


@pytest.mark.parametrize("name", SHORTS)
def test_what_nobody_can_read_is_counted_and_costs(name):
    report = "The heart is normal. The lungs are clear. Florid xyzosis of the hindquarters."
    answer = load(name).score([report], ["The heart is normal. The lungs are clear."])[0]
    assert answer.score < 1 and answer.details["unread"] == 1
    assert load(name).score([report], [report])[0].score == pytest.approx(1)


@pytest.mark.parametrize(
    "said", ["Stable.", "Unchanged from prior.", "As above.", "No change.", "Otherwise normal.", "All else unremarkable.",
             "No significant change since the previous day.", "Appearance is slightly worse."]
)  # fmt: skip
def test_a_sentence_that_only_says_how_things_stand_is_no_unread_statement(said):
    report, reference = "The heart is normal. Small left effusion.", "Small left effusion. The heart is normal."
    plain, more = load("finding_f1").score([report, f"{report} {said}"], [reference] * 2)
    assert more.details["unread"] == 0 and more.score == plain.score
    assert load("finding_f1").score([f"{report} Stable xyzosis."], [reference])[0].details["unread"] == 1


@pytest.mark.parametrize("name", SHORTS)
def test_a_reference_about_another_organ_is_an_abstention(name):
    answer = load(name).score(["The lungs are clear."], ["The kidneys are unremarkable. No ascites."])[0]
    assert answer.score is None and "says nothing about a chest" in answer.error
    assert load(name).score(["The kidneys are fine."], ["The lungs are clear."])[0].score == 0


@pytest.mark.parametrize("name", SHORTS[:2])
def test_listing_every_place_size_or_number_is_not_full_marks(name):
    for report, reference in [
        ("Mass in the upper, middle, lower, apical and basal left lung.", "Left upper lobe mass."),
        ("Nodule of 4 mm, 12 mm, 30 mm.", "Nodule of 12 mm."),
        ("Single left nodule.", "Multiple left nodules."),
        ("Left and right nodule.", "Left nodule."),
    ]:
        assert load(name).score([report], [reference])[0].score < 0.95, report


@pytest.mark.parametrize("sign", ["-", "*", "•", "1."])
@pytest.mark.parametrize("cue", ["No evidence of", "There is no", "Negative for", "Not seen", "Absent"])
def test_a_list_under_a_denial_is_denied_line_by_line(cue, sign):
    labels = label_report(f"{cue}:\n{sign} pneumothorax\n{sign} effusion.\n\nMild cardiomegaly.")
    assert (labels["Pneumothorax"], labels["Pleural Effusion"], labels["Cardiomegaly"]) == (0, 0, 1)
    assert label_report(f"Findings:\n{sign} pneumothorax\n{sign} effusion")["Pleural Effusion"] == 1
