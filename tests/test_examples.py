from chexalign.evaluation.examples import marks, reference_marks

REFERENCE = "Small left pleural effusion. Mild cardiomegaly. No pneumothorax."


def kinds(rows, text):
    return {text[m["start"] : m["end"]].lower(): m["kind"] for m in rows}


def test_right_wrong_and_wrong_side():
    text = "Moderate right effusion. The heart shows cardiomegaly. Right pneumothorax."
    assert kinds(marks(text, REFERENCE), text) == {
        "effusion": "wrong",
        "cardiomegaly": "right",
        "pneumothorax": "wrong",
    }
    text = "Effusion. Bilateral effusions."
    assert set(kinds(marks(text, REFERENCE), text).values()) == {"right"}  # no side named, or one side of two right


def test_denied_findings_are_not_marked():
    assert marks("No pleural effusion.", REFERENCE) == []


def test_the_reference_shows_what_was_missed():
    rows = reference_marks(REFERENCE, "Left pleural effusion.")
    assert {m["label"]: m["kind"] for m in rows} == {"Pleural Effusion": "right", "Cardiomegaly": "missing"}
