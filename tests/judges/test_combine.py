"""Recipe lines and combinations: worked by hand, abstentions, group and step, and lines that must be refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexalign.data.tags import body_of
from chexalign.errors import RecipeError
from chexalign.judges import combine, load
from chexalign.judges.contract import Judgement, context_of, reward
from chexalign.judges.line import FUNCTIONS, leaf_names
from chexalign.judges.request import RewardRequest

NO_IDEA = Judgement(None, "no idea")


class Fixed:
    """Answers by report; counts what it is asked."""

    def __init__(self, name, answers):
        self.name, self.version, self.answers, self.asked = name, f"{name} 7", answers, []

    def score(self, reports, references, studies=None):
        self.asked += reports
        found = [self.answers.get(r, r) for r in reports]
        return [
            f if isinstance(f, Judgement) else Judgement(float(f), details={"of": r})
            for f, r in zip(found, reports, strict=True)
        ]


def ask(judge, *reports, **context):
    return reward(judge, RewardRequest(reports, ["ref"] * len(reports), **context))


def scores(judge, *reports, **context):
    return [a.score for a in ask(judge, *reports, **context)]


A, B = Fixed("a", {"x": 0.5, "bad": NO_IDEA}), Fixed("b", {"x": 0.25, "bad": 1})


def test_a_weighted_sum_keeps_its_parts():
    judge = combine.weighted_sum([(2.0, A), (-1.0, B)])
    answer = ask(judge, "x")[0]
    assert answer.score == 2 * 0.5 - 0.25
    assert answer.details == {
        "parts": {"a": {"score": 0.5, "details": {"of": "x"}}, "b": {"score": 0.25, "details": {"of": "x"}}}
    }
    assert (
        judge.name == "2*a - 1*b" and "a 7" in judge.version and "b 7" in judge.version and "2.0 -1.0" in judge.version
    )


@pytest.mark.parametrize(
    "judge", [combine.weighted_sum([(1.0, B), (0.5, A)]), combine.minimum(B, A), combine.gate(B, A)]
)
def test_a_combination_abstains_when_a_part_does_and_still_shows_the_others(judge):
    answer = ask(judge, "bad")[0]
    assert answer.score is None and answer.error == "a: no idea"
    assert answer.details["parts"]["b"]["score"] == 1 and answer.details["parts"]["a"]["error"] == "no idea"


def test_the_minimum():
    assert scores(combine.minimum(A, B), "x") == [0.25]


def test_a_gate_asks_only_behind_full_marks():
    condition, judge = Fixed("c", {"p": 1, "q": 0.9, "r": NO_IDEA}), Fixed("j", {"p": 0.7})
    answers = ask(combine.gate(condition, judge), "q", "p", "r")
    assert [a.score for a in answers] == [0.0, 0.7, None] and answers[2].error == "c: no idea"
    assert judge.asked == ["p"] and answers[0].details == {"parts": {"c": {"score": 0.9, "details": {"of": "q"}}}}


def test_a_format_gate_hands_on_the_report_alone():
    gated = load("gate(format, rouge_l)")
    reports = ["<report>Small effusion.</report>", "Small effusion.", "<report> </report>"]
    assert [a.score for a in gated.score(reports, ["Small effusion."] * 3)] == [1, 0, 0]
    assert load("rouge_l").score(reports[:1], ["Small effusion."])[0].score == 1  # without a gate the tags are no fault


def test_every_kth_step():
    inner = Fixed("j", {})
    judge = combine.every(3, inner)
    assert [scores(judge, "0.4", step=s) for s in range(6)] == [[0.0], [0.0], [0.4], [0.0], [0.0], [0.4]]
    assert inner.asked == ["0.4", "0.4"] and context_of(judge) == {"step"}
    with pytest.raises(RecipeError, match="looks at the step"):
        judge.score(["0.4"], ["ref"])


def test_ranks_in_a_group_by_hand():
    """VALOR's visual reward: S = [.9, .1, .5, .3] → [1, 0, 2/3, 1/3]; groups apart, ties share, one alone gets 1."""
    judge = combine.rank(Fixed("j", {"bad": NO_IDEA}))
    ids = ["g", "g", "h", "g", "g", "i", "h", "h", "h"]
    found = scores(judge, "0.9", "0.1", "7", "0.5", "0.3", "5", "7", "8", "bad", group_ids=ids)
    assert found == pytest.approx([1, 0, 1 / 4, 2 / 3, 1 / 3, 1, 1 / 4, 1, None])
    with pytest.raises(RecipeError, match="looks at the group"):
        judge.score(["1"], ["ref"])
    with pytest.raises(ValueError, match="2 reports but 1 group ids"):
        ask(judge, "1", "2", group_ids=["g"])


def test_group_and_step_reach_the_innermost_part():
    judge = load("rouge_l + every(2, 0.5*rank(rouge_1))")
    assert context_of(judge) == {"group", "step"}
    rows = ["Small effusion.", "Large effusion."], ["Small effusion."] * 2
    full = reward(judge, RewardRequest(*rows, None, ["g", "g"], 5))
    off = reward(judge, RewardRequest(*rows, None, ["g", "g"], 4))
    assert [a.score for a in full] == pytest.approx([1.5, 0.5]) and [a.score for a in off] == pytest.approx([1.0, 0.5])


@given(st.lists(st.sampled_from(["0.1", "0.2", "0.3", "0.4"]), min_size=1, max_size=8), st.randoms())
@settings(max_examples=50, deadline=None)
def test_ranks_do_not_depend_on_order_and_equal_texts_are_equal(reports, rng):
    judge, order = combine.rank(Fixed("j", {})), list(range(len(reports)))
    rng.shuffle(order)
    found = scores(judge, *reports, group_ids=["g"] * len(reports))
    mixed = scores(judge, *(reports[i] for i in order), group_ids=["g"] * len(reports))
    assert mixed == [found[i] for i in order]
    assert len({(r, s) for r, s in zip(reports, found, strict=True)}) == len(set(reports))
    assert len(reports) == 1 or sum(found) == pytest.approx(len(reports) / 2)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("0.7*finding_f1+0.3*rouge_l", "0.7*finding_f1 + 0.3*rouge_l"),
        ("2*(rouge_l - bleu4/4)", "2*rouge_l - 0.5*bleu4"),
        ("-rouge_l*1e-1 + rouge_1", "-0.1*rouge_l + rouge_1"),
        ("gate(format, min(lc_rouge_l, rouge_1))", "gate(format, min(lc_rouge_l, rouge_1))"),
        ("lc(rouge_l + rouge_1)", "lc(rouge_l + rouge_1)"),
        ("rouge_l + every(4, 0.5*rank(bleu4))", "rouge_l + every(4, 0.5*rank(bleu4))"),
        ("lc_bertscore[minilm-l6:L6:recall] + meteor_1.5", "lc_bertscore[minilm-l6:L6:recall] + meteor_1.5"),
        ("1*rouge_l", "rouge_l"),
    ],
)
def test_a_line_and_its_name(line, name):
    judge = load(line)
    assert judge.name == name and load(name).version == judge.version


def test_a_judge_named_twice_is_made_once():
    judge = load("rouge_l + 0.5*lc_rouge_l + rouge_l")
    assert judge.parts[0] is judge.parts[2]
    assert judge.score(["small effusion"], ["small effusion"])[0].score == 2.5
    assert leaf_names("gate(format, rouge_l + lc_rouge_l) + every(2, rouge_l)") == ["format", "rouge_l", "lc_rouge_l"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "cannot be read"),
        ("rouge_l +", "cannot be read"),
        ("rouge_l)", "cannot be read"),
        ("3", "a number where a judge is needed"),
        ("rouge_l + 1", "a number alone cannot be added"),
        ("rouge_l*bleu4", "two judges cannot be multiplied"),
        ("rouge_l/0", "only a number other than 0 can divide"),
        ("1/rouge_l", "only a number other than 0 can divide"),
        ("gate(rouge_l)", "gate is written gate(condition, judge)"),
        ("min(rouge_l)", "min is written min(judge, judge"),
        ("every(2.5, rouge_l)", "whole number k"),
        ("every(rouge_l, 2)", "whole number k"),
        ("gaet(format, rouge_l)", "unknown function gaet; did you mean gate?"),
        ("rouge_l if format else bleu4", "judge"),
        ("[rouge_l]", "only judges, numbers"),
        ("rouge_l.score", "unknown judge 'rouge_l.score'"),
        ("__import__('os').system('true')", "judge"),
        ("rouge_l ** 2", "only judges, numbers"),
        ("min(rouge_l, bleu4, k=1)", "unknown judge 'k'"),
        ("'rouge_l'", "only judges, numbers"),
        ("1e400*rouge_l", "a number too large"),
        ("nan*rouge_l", "unknown judge 'nan'"),
        ("rouge_l" + " + rouge_l" * 3000, "cannot be read"),
        ("(" * 300 + "rouge_l" + ")" * 300, "cannot be read"),
    ],
)
def test_a_line_that_is_wrong_is_refused_in_one_line(line, message):
    with pytest.raises(RecipeError) as error:
        load(line)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_options_need_one_judge():
    with pytest.raises(RecipeError, match="options need a line with one judge"):
        load("rouge_l + rouge_1", use_stemmer=True)
    stemmed = load("rouge_l", use_stemmer=True)
    assert stemmed.score(["effusions"], ["effusion"])[0].score == 1 and stemmed.version == "1 Porter stemmer"


def test_the_functions_are_the_documented_ones():
    assert set(FUNCTIONS) == {"cascade", "gate", "every", "min", "rank", "lc"}


@pytest.mark.parametrize(
    ("text", "score", "body"),
    [
        ("<report>Clear lungs.</report>", 1, "Clear lungs."),
        (" \n<report>\nClear\nlungs. </report>\n", 1, "Clear\nlungs."),
        ("<report>a < b</report>", 1, "a < b"),
        ("Clear lungs.", 0, "Clear lungs."),
        ("<report></report>", 0, ""),
        ("<report> . </report>", 0, "."),
        ("<report><report>x</report></report>", 0, "x"),
        ("<report>x</report><report>y</report>", 0, "x  y"),
        ("Think. <report>x</report>", 0, "Think.  x"),
        ("<report>x</report> done", 0, "x  done"),
        ("</report>x<report>", 0, "x"),
        ("<REPORT>x</REPORT>", 0, "x"),
        ('<report kind="a">x</report>', 0, "x"),
        ("<report>x", 0, "x"),
        ("< report >x</ report>", 0, "x"),
        ("", 0, ""),
    ],
)
def test_format(text, score, body):
    answer = load("format").score([text], [""])[0]
    assert (answer.score, answer.details["body"]) == (score, body) and body_of(text)[0] == body
    assert ("wrong" in answer.details) == (score == 0)


@pytest.mark.parametrize(
    "text", ["<report>" * 5000, "< " * 20000, "<report>" + "</report>" * 5000 + " x", " " * 50000 + "x"]
)
def test_format_takes_no_time(text):
    assert load("format").score([text], ["r"])[0].score == 0


def test_weights_that_outgrow_numbers_are_refused():
    for line in ("rouge_l/1e-320", "1e8*1e8*rouge_l", "rouge_l*1e8*1e8"):
        with pytest.raises(RecipeError, match="a number too large"):
            load(line)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_an_abstention(score):
    found = Judgement(score)
    assert found.score is None and str(score) in found.error
