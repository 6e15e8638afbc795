"""VALOR: its two stages, the line of both rewards, and what the papers' tables vary."""

import json

import pytest
from pydantic import ValidationError
from tests.driver import OVERRIDES
from tests.train.test_online_training import ONLINE, Vowels, prepared, rows_of

from chexalign.judges import from_recipe
from chexalign.judges.contract import reward
from chexalign.judges.request import RewardRequest
from chexalign.policies import Policy
from chexalign.recipe.files import load_recipe
from chexalign.recipe.online import Rollout, Valor
from chexalign.recipe.train import Train
from chexalign.records import Study
from chexalign.run.folder import Run
from chexalign.run.judges import REWARDS_SEE
from chexalign.stages.evaluate import evaluate
from chexalign.stages.train import align
from chexalign.train.online.algorithms.valor import mixed, stages
from chexalign.train.online.rollout import PromptedStudy
from chexalign.train.online.task import validator


def train(**changes) -> Train:
    return Train(algorithm=Valor(**changes), reward="rouge_l + every(3, bleu4)", freeze=("tower",))


def test_the_stages_share_the_rounds():
    first, second = stages(train(stage_1_share=0.25, plateau=2, freeze_2=("tower", "decoder")), 20)
    assert (first.rounds, first.freeze, first.patience) == (5, ("tower",), 2)
    assert first.reward == "rouge_l + every(3, bleu4)"
    assert (second.rounds, second.freeze, second.patience) == (15, ("tower", "decoder"), 0)
    assert second.reward == "0.5*(rouge_l + every(3, bleu4)) + 0.5*(rank(visual))"
    assert [s.rounds for s in stages(train(stage_1_share=1.0), 20)] == [20]


def test_an_empty_freeze_2_freezes_nothing_and_an_absent_one_as_stage_1_does():
    assert [s.freeze for s in stages(train(freeze_2=()), 20)] == [("tower",), ()]
    assert [s.freeze for s in stages(train(), 20)] == [("tower",), ("tower",)]


def test_what_stage_2_cannot_do_is_refused_before_any_work():
    given = {"reward": "rouge_l", "freeze": ["tower"], "lora": {"r": 4}}
    with pytest.raises(ValidationError, match="same parts learn in both stages"):
        Train(algorithm={"type": "valor", "freeze_2": ["tower", "projector"]}, **given)
    with pytest.raises(ValidationError, match="nothing would learn"):
        Train(algorithm={"type": "valor", "freeze_2": ["tower", "projector", "decoder"]}, reward="rouge_l")
    assert Train(algorithm={"type": "valor", "freeze_2": ["tower"]}, **given).lora


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
        return [a.score for a in reward(judge, RewardRequest(reports, [reference] * 4, studies, ["s"] * 4, step))]

    rouge, bleu, place = scores("rouge_l", 0), scores("bleu4", 0), scores("rank(bleu4)", 0)
    assert place[0] == 1 and min(place) >= 0
    line = mixed("rouge_l + every(3, bleu4)", "rank(bleu4)", 0.4)
    assert scores(line, 1) == pytest.approx([0.6 * r + 0.4 * p for r, p in zip(rouge, place, strict=True)])
    assert scores(line, 2) == pytest.approx(
        [0.6 * (r + b) + 0.4 * p for r, b, p in zip(rouge, bleu, place, strict=True)]
    )


def test_ranks_are_the_advantages_unless_told_otherwise():
    assert Valor().scale == "rank" and Valor(scale="group").scale == "group"


# ---- the road: two stages, what learns in each, and how the first one ends

VALOR = "train.algorithm={type: valor, visual: rank(bleu4), stage_1_share: 0.5, freeze_2: [tower, projector]%s}"


def run_of(source, folder, more="") -> Run:
    changes = [f"run_dir={folder}", *OVERRIDES, *ONLINE, VALOR % more, "train.watch.every=1", "evaluate.bootstrap=20"]
    return Run(load_recipe("tiny", changes), prepared(source, folder), {"stages": {}})


def falling(*_):
    """A validation that never gets better after the first."""
    calls = iter(range(1000))
    return lambda: {"val_loss": float(next(calls)), "val_chexpert_rule_f1": 0.5}


@pytest.mark.parametrize(("more", "first"), [("", 3), (", plateau: 2", 2)])
def test_stage_1_ends_by_its_share_of_the_rounds_or_by_a_plateau(tiny_run, tmp_path, monkeypatch, more, first):
    monkeypatch.setattr("chexalign.stages.train_online.validator", falling)
    run = run_of(tiny_run, tmp_path / "run", more)
    told = align(run).extra
    assert [s["rounds"] for s in told["stages"]] == [first, 3] and [s["best_round"] for s in told["stages"]] == [0, 0]
    rows = rows_of(run.dir)
    assert [r["stage"] for r in rows] == [1] * 2 * first + [2] * 6  # two inner steps to a round
    assert [r["round"] for r in rows] == [i // 2 for i in range(2 * (first + 3))]


def test_each_stage_tells_what_learns_and_what_it_brought(tiny_run, tmp_path):
    run = run_of(tiny_run, tmp_path / "run")
    one, two = (s["learns"] for s in align(run).extra["stages"])
    policy = Policy.load(run.dir / "baseline")
    policy.freeze(("tower",))
    count = sum(p.numel() for p in policy.scorer.parameters() if p.requires_grad)
    assert set(one) == {"projector", "decoder"} and sum(part["weights"] for part in one.values()) == count
    assert two == {"decoder": one["decoder"]}
    evaluate(run)
    found = json.loads((run.dir / "results.json").read_text())
    first, second = (found["subsets"][name] for name in ("stage_1", "stage_2"))
    for metric, cell in found["difference"].items():
        assert (
            first["baseline"][metric] == found["baseline"][metric]
            and second["aligned"][metric] == found["aligned"][metric]
        )
        assert cell["mean"] == pytest.approx(first["difference"][metric]["mean"] + second["difference"][metric]["mean"])
    assert {"greedy_stage_1", "greedy_stage_2"} <= set(found["subsets"])
    assert not (run.dir / "evaluation/stage_1.shuffled.jsonl").exists()


def test_validation_draws_the_same_random_numbers_each_time(tiny_folder, prompts):
    """What a stage keeps is chosen among policies that were given the same luck."""
    policy, judge = Policy.load(tiny_folder), Vowels()
    asked = [
        PromptedStudy(Study(f"s{i}", "p", "val", findings="The heart is normal."), p, "The heart is normal.")
        for i, p in enumerate(prompts)
    ]
    drawn = validator(policy, judge, asked, Rollout(max_new_tokens=8), "vowels", 1.0)
    first, greedy = drawn(), validator(policy, judge, asked, Rollout(max_new_tokens=8), "vowels")()
    assert drawn() == first and greedy["val_loss"] != first["val_loss"]
