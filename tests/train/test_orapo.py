"""OraPO: the EMA and its weight, the mixed loss by hand, the oracle in the same pass, balanced studies."""

import math

import pytest
import torch
from tests.train.test_online_training import Vowels, asked, gradients, make_task, opened  # noqa: F401 (asked is a fixture)

from chexalign.errors import WorkError
from chexalign.recipe.online import OraPo
from chexalign.recipe.warmup import Phase
from chexalign.records import Study
from chexalign.report.inputs import WARMUP_LOGS
from chexalign.stages import warmup
from chexalign.train.online.algorithms.base import GroupBatch, Oracle
from chexalign.train.online.algorithms.orapo import loss, weigh
from chexalign.train.online.balance import balanced


def test_the_weight_follows_the_prompts_own_zero_rewards():
    settings, memory = OraPo(momentum=0.5, start=1.0, w_min=0.1, w_max=0.9, gamma=2.0), {}
    some, none = torch.tensor([0.0, 0.3]), torch.tensor([0.0, 0.0])
    assert weigh("a", none, memory, settings) == pytest.approx(0.9)
    assert weigh("a", some, memory, settings) == pytest.approx(0.1 + 0.8 * 0.5**2)
    assert weigh("a", some, memory, settings) == pytest.approx(0.1 + 0.8 * 0.25**2)
    assert weigh("b", none, memory, settings) == pytest.approx(0.9) and memory == {"a": 0.25, "b": 1.0}
    assert weigh("a", torch.tensor([]), memory, settings) == pytest.approx(0.1 + 0.8 * 0.25**2)  # nothing was scored


def test_the_mixed_loss_by_hand():
    """One group of two samples of one token each, advantages 1 and −1, ratio 1; the oracle has two tokens."""
    logps = torch.tensor([[[-1.0], [-2.0]]])
    batch = GroupBatch(
        logps=logps, old_logps=logps, ref_logps=logps - torch.tensor([[[0.5], [-0.5]]]), mask=torch.ones(1, 2, 1),
        tokens=torch.ones(1, 2, 1), advantages=torch.tensor([[1.0, -0.5]]), weights=torch.tensor([0.25]), max_tokens=10,
        oracle=Oracle(torch.tensor([-3.0]), torch.tensor([-5.0]), torch.tensor([2.0])),
    )  # fmt: skip
    settings = OraPo(kl=0, oracle_beta=2.0)
    policy = (-1.0 / 10 + 0.5 / 10) / 2
    pull = (math.log1p(math.exp(-2 * (1 - 0.5))) + math.log1p(math.exp(-2 * (1 + 0.5)))) / 2
    values, metrics = loss(batch, settings)
    assert values.tolist() == pytest.approx([0.75 * policy + 0.25 * pull])
    assert metrics["oracle_loss"].tolist() == pytest.approx([pull])


def test_groups_of_zeros_learn_from_the_oracle_alone(tiny_folder, asked):  # noqa: F811
    everyone = {a.study.study_id for a in asked}
    task = make_task(opened(tiny_folder), Vowels(zero=everyone), OraPo(kl=0), tiny_folder)
    groups, row = task.prepare(0, asked)
    assert len(groups) == 5 and row["zero_reward_rate"] == 1
    assert {len(g.completions) for g in groups} == {5} and all(g.weight == pytest.approx(0.9) for g in groups)
    output = task.module(*task.inputs(groups))
    output.retain_grad()
    values, metrics = task.loss(output, groups)
    assert values.tolist() == pytest.approx([0.9 * math.log(2)] * 5, rel=1e-4)  # policy = reference
    values.sum().backward()
    rows = output.grad.view(5, 5, -1)
    assert (rows[:, -1].sum(-1) < 0).all() and (
        rows[:, :-1].sum(-1) > 0
    ).all()  # towards the report, away from the samples
    assert metrics["policy_loss"].tolist() == [0] * 5


def test_a_weight_of_zero_is_plain_grpo(tiny_folder, asked):  # noqa: F811
    from chexalign.recipe.online import Grpo

    oracle = make_task(opened(tiny_folder), Vowels(), OraPo(kl=0.1, w_min=0, w_max=0, average="sequence"), tiny_folder)
    plain = make_task(opened(tiny_folder), Vowels(), Grpo(kl=0.1), tiny_folder)
    one, two = (gradients(t, t.prepare(0, asked)[0]) for t in (oracle, plain))
    assert one.keys() == two.keys() and all(torch.allclose(one[n], two[n], atol=1e-6) for n in one)


def test_the_memory_survives_a_checkpoint(tiny_folder, asked):  # noqa: F811
    task = make_task(opened(tiny_folder), Vowels(zero={"s1"}), OraPo(kl=0), tiny_folder)
    task.prepare(0, asked)
    other = make_task(opened(tiny_folder), Vowels(), OraPo(kl=0), tiny_folder)
    other.load_state_dict(task.state_dict())
    assert other.memory == task.memory and other.memory["s1"] == 1.0 and other.memory["s0"] == pytest.approx(0.9)


def test_balanced_studies_hold_the_rare_ones():
    kinds = [(0, 0)] * 50 + [(1, 0)] * 40 + [(0, 1)] * 5 + [(1, 1)] * 5
    studies = [Study(f"{i:03}", f"p{i}", "train", findings="x") for i in range(100)]
    labels = {s.study_id: kind for s, kind in zip(studies, kinds, strict=True)}
    chosen = balanced(studies, 18, 0, lambda s: labels[s.study_id])
    assert len(chosen) == 18 and [s.study_id for s in chosen] == sorted(s.study_id for s in chosen)
    counts = [sum(labels[s.study_id][j] for s in chosen) for j in (0, 1)]
    normal = sum(not any(labels[s.study_id]) for s in chosen)
    assert min(*counts, normal) >= 5  # 18 at random would hold about 8, 2 and 9
    assert balanced(studies, 18, 0, lambda s: labels[s.study_id]) == chosen
    assert len(balanced(studies, 1000, 0, lambda s: labels[s.study_id])) == 100


def test_the_weak_start_comes_from_normal_reports_alone(monkeypatch):
    """Of five studies, one of each split without a finding: the last phase learns from one and validates on the other."""
    abnormal, normal = "There is a small left pleural effusion.", "The lungs are clear."
    rows = [("t0", abnormal), ("t1", normal), ("t2", abnormal), ("v0", normal), ("v1", abnormal)]
    train, val = ([Study(i, i, "train", findings=text) for i, text in rows if i[0] == s] for s in "tv")
    seen = []
    monkeypatch.setattr(
        warmup, "_text_phase", lambda run, policy, phase, splits, target, name: seen.append((splits, name))
    )
    warmup._normal_report_phase(None, None, Phase(steps=1), train, val)
    assert [[s.study_id for s in split] for split in seen[0][0]] == [["t1"], ["v0"]] and seen[0][1] == "normal_report"
    assert seen[0][1] in WARMUP_LOGS  # the page draws its curve
    with pytest.raises(WorkError, match=r"normal_reports.*steps=0"):
        warmup._normal_report_phase(None, None, Phase(steps=1), train[:1], val)
