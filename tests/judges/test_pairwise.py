"""The pairwise judge: both orders, ties, groups, and the offline comparator."""

import json

import pytest
from tests.judges.llm_server import answer, serve

from chexalign.errors import Abstain, RecipeError
from chexalign.judges import load
from chexalign.judges.contract import context_of, reward
from chexalign.judges.prompted.pairwise import read_choice
from chexalign.judges.request import RewardRequest
from chexalign.llm.reply import Reply

REFERENCE = "Small left effusion. Cardiomegaly."
GOOD, FAIR, BAD = "Left effusion, small. Cardiomegaly.", "Left effusion.", "No effusion. Pneumothorax."


def drafts(body):
    text = body["messages"][0]["content"]
    a, b = text.split("Draft A:\n")[1].split("\n\nDraft B:\n")
    return a, b.split("\n")[0]


def better_of(worth, field="json"):
    """A model that prefers by `worth`, whatever the order."""

    def behave(number, body):
        a, b = map(worth, drafts(body))
        word = "tie" if a == b else "A" if a > b else "B"
        return answer(json.dumps({"better": word}) if field == "json" else word)

    return behave


@pytest.mark.parametrize("form", ["json", "letter"])
def test_both_orders_must_agree(form):
    with serve(better_of(lambda text: "Cardiomegaly" in text, form)) as served:
        judge = load("pairwise", url=served.url, model="m", answer=form)
        rows = [(GOOD, FAIR, 1), (FAIR, GOOD, -1), (FAIR, BAD, 0)]
        found = judge.compare_pairs([REFERENCE] * 3, [r[0] for r in rows], [r[1] for r in rows])
        assert [p.winner for p in found] == [r[2] for r in rows]
        assert all(p.details["agreed"] for p in found)
        assert len(served.bodies) == 4  # rows one and two are the same two questions


@pytest.mark.parametrize("word", ["A", "B"])
def test_a_judge_that_always_names_one_place_ties(word):
    with serve(lambda n, body: answer(word)) as served:
        found = load("pairwise", url=served.url, model="m").compare(REFERENCE, GOOD, BAD)
        assert found.winner == 0 and found.details["agreed"] is False and found.error is None
        assert sorted(found.details["orders"]) == [-1, 1]


def test_a_choice_against_a_tie_is_a_tie():
    with serve(lambda n, body: answer('{"better": "tie"}' if drafts(body)[0] == BAD else '{"better": "A"}')) as served:
        assert load("pairwise", url=served.url, model="m").compare(REFERENCE, GOOD, BAD).winner == 0


def test_an_unreadable_answer_in_one_order_is_no_tie():
    with serve(lambda n, body: answer("A" if drafts(body)[0] == GOOD else "Both are fine.")) as served:
        found = load("pairwise", url=served.url, model="m").compare(REFERENCE, GOOD, BAD)
        assert found.winner is None and found.error.startswith("parse_failed")


@pytest.mark.parametrize(
    ("text", "choice"),
    [("A", 1), (" b.", -1), ("**Tie**", 0), ("Draft A", 1), ('{"better": "B"}', -1), ('Yes: {"better": "draft a"}', 1)],
)
def test_answers_that_are_read(text, choice):
    assert read_choice(Reply(text)) == choice


@pytest.mark.parametrize("text", ["", "A report is better than B", '{"better": "both"}', '{"better": 1}', "C"])
def test_answers_that_are_not(text):
    with pytest.raises(Abstain, match="^parse_failed"):
        read_choice(Reply(text))


def test_what_needs_no_judge():
    with serve(lambda n, body: answer("A")) as served:
        judge = load("pairwise", url=served.url, model="m")
        compare = judge.compare
        assert compare(REFERENCE, GOOD, GOOD + " ").winner == 0
        assert (compare(REFERENCE, "", GOOD).winner, compare(REFERENCE, GOOD, ".").winner) == (-1, 1)
        assert compare(REFERENCE, "", ".").winner == 0
        assert compare(" ", GOOD, BAD).error == "the reference is empty"
        assert served.bodies == [] and judge.summary() is None


def test_offline_the_sign_of_a_judges_difference_beyond_the_margin():
    judge = load("pairwise")
    assert [
        judge.compare(REFERENCE, *pair).winner for pair in ((GOOD, BAD), (BAD, GOOD), (FAIR, FAIR + " Stable."))
    ] == [1, -1, 0]
    gap = (
        load("finding_f1").score([GOOD], [REFERENCE])[0].score - load("finding_f1").score([FAIR], [REFERENCE])[0].score
    )
    assert load("pairwise", margin=gap + 1e-9).compare(REFERENCE, GOOD, FAIR).winner == 0
    assert load("pairwise", margin=gap - 1e-9).compare(REFERENCE, GOOD, FAIR).winner == 1
    assert load("pairwise", judge="lc_rouge_l").compare("a b c", "a b", "x y").winner == 1
    for options, what in (
        ({"margin": -1.0}, "margin is -1"),
        ({"judge": "rank(rouge_l)"}, "looks at a group"),
        ({"judge": "rouge"}, "rouge"),
    ):
        with pytest.raises(RecipeError, match=what):
            load("pairwise", **options)


def test_in_a_group_the_share_of_wins():
    judge = load("pairwise")
    assert context_of(judge) == {"group"}
    answers = reward(
        judge, RewardRequest([GOOD, BAD, FAIR, GOOD, GOOD], [REFERENCE] * 5, group_ids=["s", "s", "s", "t", "t"])
    )
    assert [a.score for a in answers] == [1.0, 0.0, 0.5, 0.5, 0.5]
    assert answers[0].details == {"wins": 2, "ties": 0, "losses": 0, "unanswered": 0}
    alone = reward(judge, RewardRequest([GOOD], [REFERENCE], group_ids=["s"]))[0]
    assert alone.score is None and "group of one" in alone.error
    with pytest.raises(RecipeError, match="compares the reports of a group"):
        judge.score([GOOD], [REFERENCE])


def test_unanswered_comparisons_of_a_group_do_not_count():
    with serve(lambda n, body: answer("?") if FAIR in drafts(body) else better_of(len)(n, body)) as served:
        judge = load("pairwise", url=served.url, model="m")
        answers = reward(judge, RewardRequest([GOOD, FAIR, BAD], [REFERENCE] * 3, group_ids=["s"] * 3))
        assert [a.score for a in answers] == [1.0, None, 0.0]
        assert answers[0].details["unanswered"] == 1 and answers[1].error.startswith("parse_failed")
