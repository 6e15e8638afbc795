"""What every judge that needs nothing must do, with and without length control, and the table itself."""

import math
import subprocess
import sys
import time

import pytest

from chexalign.errors import RecipeError
from chexalign.judges import JUDGES, load
from chexalign.judges.combine import length_controlled
from chexalign.judges.contract import MEMORY, Judgement, TextJudge

NAMES = [prefix + name for name, entry in JUDGES.items() if entry.needs == "nothing" for prefix in ("", "lc_")]
REFERENCES = [
    "Small left pleural effusion. The heart is mildly enlarged. No pneumothorax.",
    "No acute cardiopulmonary abnormality.",
    "Right upper lobe opacity, which may reflect pneumonia. Bibasilar atelectasis.",
    "1. Left PICC ends in the superior vena cava.\n2. Moderate pulmonary edema.",
    "Épanchement pleural — petit 🫁 effusion, İ ½.",
]
REPORTS = [
    *REFERENCES,
    "No pleural effusion.",
    "Large right pleural effusion.",
    "",
    ".",
    "\n \t",
    "heart " * 5000,
    "正常",
    "\ud800 x",
]


@pytest.fixture(params=NAMES)
def judge(request):
    return load(request.param)


def scores(judge, reports, references):
    answers = judge.score(reports, references)
    for answer in answers:
        assert (answer.score is None) == (answer.error is not None)
        assert answer.score is None or math.isfinite(answer.score)
    return [a.score for a in answers]


def test_a_text_scores_highest_against_itself(judge):
    for reference in REFERENCES:
        best, *others = scores(judge, [reference, *REPORTS], [reference] * (1 + len(REPORTS)))
        assert best == pytest.approx(1) and max(others) <= best


@pytest.mark.parametrize("blank", ["", ".", " \n", "- …"])
def test_a_blank_report_gets_the_worst_score_and_a_blank_reference_none(judge, blank):
    assert scores(judge, [blank], [REFERENCES[0]]) == [0]
    answer = judge.score([REFERENCES[0]], [blank])[0]
    assert answer.score is None and answer.error == "the reference is empty"


def test_a_batch_gives_what_its_rows_give_in_any_order_and_again(judge):
    pairs = [(report, reference) for report in REPORTS for reference in [*REFERENCES, ""]]
    reports, references = zip(*pairs, strict=True)
    together = scores(judge, reports, references)
    fresh = load(judge.name)
    assert together == [scores(fresh, [a], [b])[0] for a, b in pairs]
    assert together == scores(judge, reports[::-1], references[::-1])[::-1]


def test_a_group_of_equal_texts_gets_equal_scores(judge):
    assert len(set(scores(judge, [REPORTS[5]] * 8, [REFERENCES[0]] * 8))) == 1


def test_inputs_of_different_lengths_are_refused(judge):
    with pytest.raises(ValueError, match="1 reports but 2 references"):
        judge.score(["a"], ["a", "b"])


def test_five_thousand_words_take_no_time(judge):
    started = time.process_time()
    for text in ("no effusion ", "effusion, ", "heart large ", "left ", "may be ", "x"):
        judge.score([text * 5000], [REFERENCES[0]])
        judge.score([REFERENCES[0]], [text * 5000])
    assert time.process_time() - started < 10


def test_all_judges_together_are_fast():
    """Under 3 ms for a pair of 30 words on an idle core; the bound leaves room for a busy one."""
    reports = [f"{REFERENCES[i % 4]} {REFERENCES[(i + 1) % 4]} Study {i}." for i in range(100)]
    judges = [load(name) for name in NAMES if not name.startswith("lc_")]
    started = time.process_time()
    for judge in judges:
        judge.score(reports, reports[::-1])
    assert (time.process_time() - started) / len(reports) < 0.012


def test_versions_name_what_can_change_a_score(judge):
    assert judge.version and judge.name in NAMES
    if "f1" in judge.name:
        assert "rules" in judge.version


def test_every_line_of_the_table_loads_and_speaks():
    for name, entry in JUDGES.items():
        assert all((entry.description, entry.range, entry.needs, entry.blind_to)), name
        if entry.needs == "nothing":
            assert load(name).name == name and load("lc_" + name).name == "lc_" + name


@pytest.mark.parametrize(
    ("name", "nearest"), [("rougel", "rouge_l"), ("lc_findings_f1", "lc_finding_f1"), ("lc_lc_bleu4", "lc_bleu4")]
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(RecipeError, match=f"unknown judge '{name}'; did you mean {nearest}\\?.*chexpert_rule_f1"):
        load(name)


def test_importing_the_table_imports_no_judge():
    heavy = "{'torch', 'numpy', 'rapidfuzz', 'transformers'}"
    code = f"import sys, chexalign.judges; sys.exit(' '.join({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""


class Constant:
    name, version = "constant", "1"

    def __init__(self, score):
        self.value = score

    def score(self, reports, references, studies=None):
        return [Judgement(self.value, None if self.value is not None else "no idea")] * len(reports)


@pytest.mark.parametrize(
    ("report", "reference", "expected"),
    [("a b c d", "a b", 0.4), ("a", "a b", 0.8), ("a b", "a b", 0.8), ("a b", " ", 0.8)],
)
def test_length_control_by_hand(report, reference, expected):
    """0.8 / max(words / words, 1); a reference of no words has ratio 1."""
    judge = length_controlled(Constant(0.8))
    answer = judge.score([report], [reference])[0]
    assert answer.score == pytest.approx(expected)
    assert answer.details == {"raw_score": 0.8, "length_ratio": pytest.approx(0.8 / expected)}
    assert (judge.name, judge.version) == ("lc_constant", "lc 1, 1")


def test_length_control_passes_abstentions_on_and_never_helps_a_negative_score():
    assert length_controlled(Constant(None)).score(["a b"], ["a"]) == [Judgement(None, "no idea")]
    assert length_controlled(Constant(-0.5)).score(["a b"], ["a"])[0].score == -1


def test_a_judge_forgets_the_oldest_text_when_its_memory_is_full(monkeypatch):
    monkeypatch.setattr("chexalign.judges.contract.MEMORY", 2)
    read = []
    judge = TextJudge("t", "1", lambda text: read.append(text), lambda a, b: (1.0, {}))
    judge.score(["a", "b", "b", "a"], ["a", "a", "a", "a"])
    assert read == ["a", "b"]
    judge.score(["c", "a"], ["c", "a"])
    assert read == ["a", "b", "c", "a"] and MEMORY > 1000
