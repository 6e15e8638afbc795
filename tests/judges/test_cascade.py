"""The cascade: who is asked, when an end is settled, what the audit says, and the room of an answer."""

import pytest

from chexalign.errors import Abstain, RecipeError
from chexalign.judges import from_recipe, load
from chexalign.judges.cascade import AUDITED, Cascade, _is_audited, wilson
from chexalign.judges.contract import Judgement, context_of, reward
from chexalign.judges.prompted.base import LlmJudge
from chexalign.judges.prompted.green import make_prompt
from chexalign.judges.request import RewardRequest
from chexalign.llm.reply import room_for, user
from chexalign.run.judges import shown_by_score

PLAIN = next(f"s{i}" for i in range(99) if not _is_audited(f"s{i}"))  # a group that is not asked in full
AUDIT = next(f"s{i}" for i in range(99) if _is_audited(f"s{i}"))


class Table:
    """A judge that looks scores up by report, and keeps what it was asked."""

    def __init__(self, name, scores):
        self.name, self.version, self.scores, self.asked = name, "1", scores, []

    def score(self, reports, references, studies=None):
        self.asked += reports
        return [Judgement(self.scores[r], None if self.scores[r] is not None else "why") for r in reports]


def run(cheap, costly, group=PLAIN, margin=0.1):
    names = list(cheap)
    judge = Cascade(Table("cheap", cheap), Table("costly", costly), margin)
    request = RewardRequest(names, ["ref"] * len(names), group_ids=[group] * len(names))
    return judge, dict(zip(names, reward(judge, request), strict=True))


def test_only_the_ends_and_what_is_near_them_are_asked():
    cheap = {"a1": 0.9, "b2": 0.85, "c3": 0.5, "d4": 0.1}
    judge, found = run(cheap, {"a1": 0.6, "b2": 0.7, "c3": 0.9, "d4": 0.2})
    assert judge.costly.asked == ["a1", "d4", "b2"] and found["b2"].score == 0.7
    assert found["c3"].score is None and found["c3"].error.startswith("not asked")
    assert found["c3"].details == {"cheap": 0.5, "passed_over": True}
    assert judge.summary() == "cascade(cheap, costly): 3 of 4 reports asked (25% saved); no group was asked in full"


def test_a_settled_end_is_not_asked_again():
    cheap = {"a1": 0.9, "b2": 0.9, "c3": 0.1, "d4": 0.1}
    judge, _ = run(cheap, {"a1": 1.0, "b2": 0.3, "c3": 0.0, "d4": 0.5})
    assert judge.costly.asked == ["a1", "c3"]  # 1 cannot be beaten, 0 not be undercut
    judge, _ = run(cheap, {"a1": 0.9, "b2": 0.3, "c3": 0.0, "d4": 0.5})
    assert judge.costly.asked == ["a1", "c3", "b2"]


def test_an_audited_group_is_asked_in_full_and_compared():
    cheap = {"a1": 0.9, "b2": 0.5, "c3": 0.1}
    judge, found = run(cheap, {"a1": 0.6, "b2": 0.7, "c3": 0.2}, AUDIT)
    assert [found[k].score for k in cheap] == [0.6, 0.7, 0.2]
    assert (judge.tally.audited, judge.tally.same) == (1, 0) and "in 0 of 1 groups" in judge.summary()
    judge, _ = run(cheap, {"a1": 0.8, "b2": 0.7, "c3": 0.2}, AUDIT)
    assert judge.tally.same == 1
    assert 0.5 / AUDITED < sum(_is_audited(str(i)) for i in range(4000)) / 4000 < 2 / AUDITED


def test_a_report_that_the_cheap_judge_cannot_score_is_asked():
    judge, found = run({"a1": 0.9, "b2": None, "c3": 0.1}, {"a1": 0.6, "b2": 0.7, "c3": 0.2})
    assert set(judge.costly.asked) == {"a1", "b2", "c3"} and found["b2"].score == 0.7


def test_results_do_not_depend_on_which_groups_come_together():
    cheap = {f"{g}{i}": (i * 7 + ord(g)) % 10 / 10 for g in "xyz" for i in range(4)}
    costly = {name: (i * 3) % 7 / 10 for i, name in enumerate(cheap)}
    names, groups = list(cheap), [name[0] for name in cheap]
    whole = reward(Cascade(Table("a", cheap), Table("b", costly)), RewardRequest(names, ["r"] * 12, group_ids=groups))
    parts = [
        answer
        for g in "xyz"
        for answer in reward(
            Cascade(Table("a", cheap), Table("b", costly)),
            RewardRequest([n for n in names if n[0] == g], ["r"] * 4, group_ids=[g] * 4),
        )
    ]
    assert whole == parts


def test_the_line_of_a_recipe():
    judge = from_recipe("cascade(chexpert_rule_f1, lc_finding_f1, 0.2)", {}, frozenset({"group"}))
    assert judge.name == "cascade(chexpert_rule_f1, lc_finding_f1, 0.2)" and judge.bounded
    assert context_of(judge) == {"group"} == shown_by_score(judge.name) and not shown_by_score("rouge_l")
    assert not load("cascade(rouge_l, 2*rouge_l)").bounded
    with pytest.raises(RecipeError, match="use it for rewards or pairs"):
        judge.score(["x"], ["y"])
    with pytest.raises(RecipeError, match="needs a number as its margin"):
        load("cascade(rouge_l, bleu4, rouge_l)")


def test_wilsons_interval_by_hand():
    low, high = wilson(5, 10, z=2.0)
    assert (low, high) == pytest.approx(((0.5 + 0.2 - 2 * 0.035**0.5) / 1.4, (0.5 + 0.2 + 2 * 0.035**0.5) / 1.4))


def test_two_long_reports_leave_green_room_for_its_answer():
    report = "There is a small left pleural effusion with adjacent atelectasis and no pneumothorax. " * 17  # 221 words
    prompt = make_prompt(report, report)
    assert 300 < room_for(prompt, 2048) < 2048 - len(prompt.split())
    with pytest.raises(Abstain, match="leaves no room"):
        room_for(user("word " * 1300), 2048)
    fixed, auto = (
        LlmJudge(model="m", url="http://127.0.0.1:1/v1"),
        LlmJudge(model="m", url="http://127.0.0.1:1/v1", max_tokens="auto"),
    )
    assert auto._backend._room(prompt) == room_for(prompt, 2048) and fixed._backend._room(prompt) == 1024
    assert "auto of 2048 tokens" in auto.llm_version
