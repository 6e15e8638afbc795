"""The rule labeller: probes, the CheXpert scheme, modifiers, offsets and the tables themselves."""

import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexalign.labels import FINDINGS, LABELS, find_mentions, label_report, positive_set, tables
from chexalign.labels.phrases import expand, sentences, tokens_of

# One line per rule that mattered. What is not named must be None (No Finding apart).
SENTENCES = [
    ("No pleural effusion or pneumothorax.", {"Pleural Effusion": 0, "Pneumothorax": 0}),
    ("Cannot exclude small left effusion", {"Pleural Effusion": -1}),
    ("Heart size is normal", {"Cardiomegaly": 0}),
    ("Stable cardiomegaly", {"Cardiomegaly": 1}),
    ("Interval removal of the endotracheal tube", {"Support Devices": 0}),
    ("Mild cardiomegaly is present.", {"Cardiomegaly": 1}),
    ("No focal airspace opacity. Mild right lower lobe pneumonia.", {"Lung Opacity": 0, "Pneumonia": 1}),
    ("The mediastinum is widened.", {"Enlarged Cardiomediastinum": 1}),
    ("A mass is seen in the left apex.", {"Lung Lesion": 1}),
    ("Interstitial edema.", {"Edema": 1}),
    ("Dense consolidation of the right upper lobe.", {"Consolidation": 1}),
    ("Bibasilar atelectasis.", {"Atelectasis": 1}),
    ("Tiny apical pneumothorax.", {"Pneumothorax": 1}),
    ("Biapical pleural thickening.", {"Pleural Other": 1}),
    ("Healed rib fractures.", {"Fracture": 1}),
    ("A right PICC ends in the superior vena cava.", {"Support Devices": 1}),
    # denial, its end, and what only looks like it
    ("No pneumothorax, small left effusion.", {"Pneumothorax": 0, "Pleural Effusion": 1}),
    ("No edema, large effusion, or consolidation.", {"Edema": 0, "Pleural Effusion": 0, "Consolidation": 0}),
    ("There is no pneumothorax, and the heart is enlarged.", {"Pneumothorax": 0, "Cardiomegaly": 1}),
    ("No effusion and a small pneumothorax.", {"Pleural Effusion": 0, "Pneumothorax": 1}),
    ("No change in the small left effusion.", {"Pleural Effusion": 1}),
    ("No persistent pneumothorax.", {"Pneumothorax": 0}),
    ("No new consolidation.", {"Consolidation": 0}),
    ("Without effusion but with mild edema.", {"Pleural Effusion": 0, "Edema": 1}),
    ("The lungs are clear of focal consolidation.", {"Consolidation": 0}),
    ("Pneumothorax is no longer seen.", {"Pneumothorax": 0}),
    ("The pneumonia has resolved.", {"Pneumonia": 0}),
    ("Left effusion persists and the right pneumothorax has resolved.", {"Pleural Effusion": 1, "Pneumothorax": 0}),
    ("Pleural effusion: none. Pneumothorax: no", {"Pleural Effusion": 0, "Pneumothorax": 0}),
    ("Tube removed and placement of a right catheter.", {"Support Devices": 1}),
    # doubt
    ("Opacity, which may reflect pneumonia.", {"Lung Opacity": 1, "Pneumonia": -1}),
    ("Opacity likely atelectasis.", {"Lung Opacity": 1, "Atelectasis": -1}),
    ("Pneumonia cannot be excluded.", {"Pneumonia": -1}),
    ("A small effusion is possible.", {"Pleural Effusion": -1}),
    ("Opacity consistent with pneumonia.", {"Lung Opacity": 1, "Pneumonia": 1}),
    ("Superimposed infection.", {"Pneumonia": -1}),
    ("Nodular opacity.", {"Lung Opacity": 1, "Lung Lesion": -1}),
    ("Congestive heart failure.", {"Edema": 1}),
    ("No heart failure.", {"Edema": 0}),
    # organs
    ("Normal heart size.", {"Cardiomegaly": 0}),
    ("The heart is top normal in size.", {"Cardiomegaly": 0}),
    ("The heart is not enlarged.", {"Cardiomegaly": 0}),
    ("The heart is borderline enlarged.", {"Cardiomegaly": 1}),
    ("The cardiac silhouette is stable.", {}),
    ("The cardiomediastinal silhouette is enlarged.", {"Cardiomegaly": 1, "Enlarged Cardiomediastinum": 1}),
    ("Heart size mildly enlarged, stable mediastinal contours.", {"Cardiomegaly": 1}),
    ("Neither the heart nor the mediastinum is enlarged.", {"Cardiomegaly": 0, "Enlarged Cardiomediastinum": 0}),
    ("Small effusion and heart size is normal.", {"Pleural Effusion": 1, "Cardiomegaly": 0}),
    # words that are not the finding
    ("Small pericardial effusion.", {}),
    ("Old granulomatous infection.", {}),
    ("Patient with a history of pneumonia.", {}),
    ("CT is more sensitive for small nodules.", {}),
    # line breaks: wrapped lines go on, headings and lists do not
    ("no edema, pleural\n effusion or fracture.", {"Edema": 0, "Pleural Effusion": 0, "Fracture": 0}),
    ("NO PLEURAL\nEFFUSION. MILD EDEMA.", {"Pleural Effusion": 0, "Edema": 1}),
    ("- no effusion\n- small pneumothorax", {"Pleural Effusion": 0, "Pneumothorax": 1}),
    ("Lungs: no effusion\nHeart: enlarged", {"Pleural Effusion": 0, "Cardiomegaly": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SENTENCES, ids=[text[:40] for text, _ in SENTENCES])
def test_a_sentence_says(text, expected):
    labels = label_report(text)
    labels.pop("No Finding")
    assert {k: v for k, v in labels.items() if v is not None} == expected


def test_labels_come_in_the_order_of_the_scheme():
    assert tuple(label_report("Edema.")) == LABELS
    assert LABELS[0] == "Enlarged Cardiomediastinum" and LABELS[-1] == "No Finding" and len(LABELS) == 14


def test_mentions_are_summed_up_as_chexpert_does():
    assert label_report("No effusion. Possible effusion. Small effusion.")["Pleural Effusion"] == 1
    assert label_report("No effusion. Possible effusion.")["Pleural Effusion"] == -1


def test_no_finding_needs_a_text_without_findings_and_allows_devices():
    assert label_report("Lungs are clear. Pacemaker.")["No Finding"] == 1
    assert label_report("Possible effusion.")["No Finding"] is None
    assert label_report("Edema.")["No Finding"] is None


@pytest.mark.parametrize("text", ["", " \n", "...", "—"])
def test_a_text_without_words_has_no_labels(text):
    assert set(label_report(text).values()) == {None}


def test_positive_set_takes_uncertain_as_positive_unless_told():
    labels = label_report("Edema. Possible effusion. No pneumothorax.")
    assert positive_set(labels) == {"Edema", "Pleural Effusion"}
    assert positive_set(labels, uncertain_is_positive=False) == {"Edema"}
    assert positive_set(label_report("Clear.")) == {"No Finding"}


PLACES = [
    ("Tiny right pneumothorax, big left effusion.", [("right", None, "small", None), ("left", None, "large", None)]),
    ("Opacity in the right upper lobe is concerning for pneumonia.", [("right", "upper", None, None), (None,) * 4]),
    ("Effusion on the left and atelectasis on the right.", [("left", None, None, None), ("right", None, None, None)]),
    ("Scarring or atelectasis at the left base.", [("left", "basal", None, None)] * 2),
    ("Left lower lobe atelectasis or consolidation.", [("left", "lower", None, None)] * 2),
    ("Moderate left effusion. Moderate edema.", [("left", None, "moderate", None), (None, None, None, "moderate")]),
    ("Mild edema and left basal atelectasis.", [(None, None, None, "mild"), ("left", "basal", None, None)]),
    ("Bibasilar atelectasis.", [("bilateral", "basal", None, None)]),
    ("Opacities in the right upper and left lower lobes.", [("bilateral", "upper", None, None)]),
    ("Nodular opacity in the left mid lung.", [("left", "middle", None, None)] * 2),
    ("Lingular opacity.", [("left", "middle", None, None)]),
    ("The cardiac silhouette is mildly enlarged.", [(None, None, None, "mild")]),
    ("Left catheter with its end in the right atrium.", [("left", None, None, None)]),
    ("Right pneumothorax seen on the left lateral view.", [("right", None, None, None)]),
    ("Retrocardiac opacity.", [(None, "retrocardiac", None, None)]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), PLACES, ids=[text[:40] for text, _ in PLACES])
def test_modifiers_belong_to_the_nearest_finding(text, expected):
    assert [(m.side, m.zone, m.size, m.severity) for m in find_mentions(text)] == expected


@pytest.mark.parametrize("before", ["", "  \n\n", "İİİ ", "— ", "🫁 ", "ẞ "])
def test_offsets_are_those_of_the_text_as_given(before):
    text = before + "Heart is Mildly Enlarged; no PLEURAL effusion."
    assert [text[m.start : m.end] for m in find_mentions(text)] == ["Heart is Mildly Enlarged", "effusion"]


@settings(deadline=None)
@given(st.text(max_size=200), st.text(max_size=20))
def test_any_text_can_be_read(text, gap):
    for t in (text, f"no{gap}effusion{gap}left{gap}enlarged heart{gap}"):
        assert all(0 <= m.start < m.end <= len(t) and m.label in FINDINGS for m in find_mentions(t))


def test_every_phrase_of_the_tables_is_found_and_means_what_it_says():
    """A phrase that a longer one hides, or that is written wrongly, would be dead."""
    dead = []
    for phrase, tag in tables.entries():
        for words in expand(phrase):
            text = " ".join("xxxx" if w == "_" else w.removesuffix("*") for w in words)
            items = [item for sentence in sentences(text, tables.trie()) for item in sentence]
            if not any((i.kind, i.value, i.start) == (*tag, 0) for i in items):
                dead.append((tag, text))
            if tag.kind == "says" and (tag.value, 1) not in {(m.label, m.status) for m in find_mentions(text)}:
                dead.append((tag, text))
    assert not dead


def test_the_phrase_language():
    assert set(expand("(big|very large) heart?")) == {
        ("big",),
        ("big", "heart"),
        ("very", "large"),
        ("very", "large", "heart"),
    }
    assert [t.word for t in tokens_of("Port-A-Cath, 1.5 cm vs. T4.")] == [
        "port",
        "a",
        "cath",
        ",",
        "1.5",
        "cm",
        "vs.",
        "t",
        "4",
        ".",
    ]


def test_a_prefix_too_short_to_be_meant_is_refused():
    with pytest.raises(ValueError, match="shorter than 3"):
        tables.Trie().add("no* change", tables.Tag("pass", ""))


def test_the_reports_that_come_with_chexpert_labeler(shared):
    """Four reports with the labels of the original tool (Irvin et al. 2019, MIT)."""
    folder = shared / "data" / "judge_validation"
    with (folder / "chexpert_labeler_labeled_reports.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row in rows:
        expected = {label: int(float(row[label])) if row[label] else None for label in LABELS}
        assert label_report(row["Reports"]) == expected
