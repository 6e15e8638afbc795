"""VALOR: its two stages, the line of both rewards, and what the papers' tables vary."""

import pytest

from chexalign.judges import from_recipe
from chexalign.judges.contract import reward
from chexalign.recipe import Train
from chexalign.recipe_online import Valor
from chexalign.records import Study
from chexalign.run_judges import REWARDS_SEE
from chexalign.train.online_algorithms.valor import mixed, stages


def train(**changes) -> Train:
    return Train(algorithm=Valor(**changes), reward="rouge_l + every(3, bleu4)", freeze=("tower",))


def test_the_stages_share_the_rounds():
    first, second = stages(train(stage_1_share=0.25, plateau=2, freeze_2=("tower", "decoder")), 20)
    assert (first.rounds, first.freeze, first.patience) == (5, ("tower",), 2)
    assert first.reward == "rouge_l + every(3, bleu4)"
    assert (second.rounds, second.freeze, second.patience) == (15, ("tower", "decoder"), 0)
    assert second.reward == "0.5*(rouge_l + every(3, bleu4)) + 0.5*(rank(visual))"
    assert [s.rounds for s in stages(train(stage_1_share=1.0), 20)] == [20]


def test_the_ends_of_lambda_ask_one_judge_alone():
    assert mixed("rouge_l", "rank(visual)", 0) == "rouge_l"
    assert mixed("rouge_l", "rank(visual)", 1) == "rank(visual)"


def test_both_rewards_by_hand():
    """Ranks of bleu4 stand for those of the image judge; bleu4 joins the text at every third step."""
    reference = "the heart is normal in size and the lungs are clear"
    reports = [reference, "the heart is normal", "the lungs are clear and the heart is big", "nothing"]
    studies = [Study("s", "p", "train", findings=reference)] * 4

    def scores(line, step):
        judge = from_recipe(line, {}, REWARDS_SEE)
        return [a.score for a in reward(judge, reports, [reference] * 4, studies, ["s"] * 4, step)]

    rouge, bleu, place = scores("rouge_l", 0), scores("bleu4", 0), scores("rank(bleu4)", 0)
    assert place[0] == 1 and min(place) >= 0
    line = mixed("rouge_l + every(3, bleu4)", "rank(bleu4)", 0.4)
    assert scores(line, 1) == pytest.approx([0.6 * r + 0.4 * p for r, p in zip(rouge, place, strict=True)])
    assert scores(line, 3) == pytest.approx(
        [0.6 * (r + b) + 0.4 * p for r, b, p in zip(rouge, bleu, place, strict=True)]
    )


def test_ranks_are_the_advantages_unless_told_otherwise():
    assert Valor().scale == "rank" and Valor(scale="group").scale == "group"
