"""What is no report is told before it is scored, by every judge; and a language is told by its words."""

import pytest

from chexalign.judges import load
from chexalign.judges.contract import Judgement, without_judging
from chexalign.judges.registry import JUDGES
from chexalign.labels.readability import ENGLISH, examine

NORMAL = "The heart size is normal. The lungs are clear. No pleural effusion or pneumothorax."
NO_REPORT = {
    "refusal": [
        "I am sorry, but I can't read this radiograph.",
        "As a language model, I cannot provide a diagnosis. Please consult a physician.",
        "Unfortunately, I'm not able to analyze medical images.",
        "No image was provided. Please upload the x-ray.",
    ],
    "no statement": ["987", "N/A", "null", "Impression:", "FINDINGS: \nIMPRESSION:", "Dictation pending.", "See above."]
    + ["Uninterpretable film.", "Certainly! Here is the report:", "PA and lateral views of the chest."],
    "repetition": ["edema " * 30, "No acute disease. " * 9, "the the lungs lungs are are clear of of of no no no no"],
    "empty": ["", ". .", "\n", "—"],
}
REPORTS = {
    "German": ["Keine Infiltrate.", "Herz nicht vergrößert, kein Erguss.", "Pleuraerguss links."],
    "French": ["Pas de pneumothorax.", "Épanchement pleural droit.", "Silhouette cardiaque de taille normale."],
    "Spanish": ["Sin neumotórax.", "Derrame pleural izquierdo.", "No se observan infiltrados."],
    "Portuguese": ["Sem pneumotórax.", "Área cardíaca aumentada.", "Pulmões sem opacidades."],
    "Italian": ["Non versamento pleurico.", "Cuore ingrandito.", "Polmoni liberi, senza addensamenti."],
    "Dutch": ["Geen infiltraten.", "Hart vergroot.", "Pleuravocht rechts, geen stuwing."],
    "Chinese": ["双肺清晰，未见气胸。", "心影增大。"],
    "Polish": ["Płuca bez zmian."],
    "Japanese": ["肺野は清明です。"],
}
ENGLISH_REPORTS = [
    NORMAL,
    "Pneumothorax on the left.",
    "Clear lungs.",
    "Sjögren disease with fibrosis.",
    "Cor pulmonale.",
]
ENGLISH_REPORTS += ["I cannot exclude pneumonia.", "Normal.", "ARDS.", "No change.", "Small left effusion. " * 3]
ENGLISH_REPORTS += ["Unable to assess the apices. The lungs are otherwise clear.", "Ｎｏ ｅｄｅｍａ"]
FREE = [name for name, entry in JUDGES.items() if entry.needs == "nothing" and name not in ("format", "pairwise")]
FREE = [name for name in FREE if name != "finding_consistency"]


@pytest.mark.parametrize(("problem", "text"), [(k, t) for k, texts in NO_REPORT.items() for t in texts])
def test_what_is_no_report_is_told(problem, text):
    assert examine(text).problem == problem


@pytest.mark.parametrize("text", ENGLISH_REPORTS)
def test_a_report_is_one(text):
    assert examine(text).problem is None and examine(text).language in (ENGLISH, None)


@pytest.mark.parametrize(("language", "text"), [(k, t) for k, texts in REPORTS.items() for t in texts])
def test_a_language_is_told_by_its_words(language, text):
    assert examine(text) == (None, language)


@pytest.mark.parametrize("name", FREE)
def test_every_judge_gives_no_report_the_lowest_score_and_abstains_where_the_reference_is_none(name):
    judge = load(name)
    for problem, texts in NO_REPORT.items():
        for answer in judge.score(texts, [NORMAL] * len(texts)):
            assert (
                answer.score == 0
                and answer.details["unreadable"] == problem
                and "the report is" in answer.details["note"]
            )
        for answer in judge.score([NORMAL] * len(texts), texts):
            assert answer.score is None and answer.error.startswith("the reference is")


@pytest.mark.parametrize("name", FREE)
def test_another_language_than_the_references_earns_nothing(name):
    foreign = [text for texts in REPORTS.values() for text in texts]
    for answer in load(name).score(foreign, [NORMAL] * len(foreign)):
        assert answer.score == 0 and answer.details["unreadable"] == "another language"


@pytest.mark.parametrize("name", FREE)
def test_a_german_reference_is_for_judges_that_read_any_language(name):
    german = REPORTS["German"][1]
    answer = load(name).score([german], [german])[0]
    if JUDGES[name].reads == ENGLISH or name == "facts":  # facts by rules; by a language model it reads any
        assert answer.score is None and answer.error == "the reference is in German, and this judge reads English alone"
    else:
        assert answer.score > 0.9
    assert load(name).score([NORMAL], [german])[0].score in (0, None)


def test_the_pair_that_needs_no_judge_gets_the_lowest_score_of_the_judge():
    assert without_judging("nan", NORMAL, worst=-1.0) == Judgement(
        -1.0, details={"note": "the report is empty of statements", "unreadable": "no statement"}
    )
    assert without_judging("PTX.", "Cardiomegaly.", reads=ENGLISH) is None
