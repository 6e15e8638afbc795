"""On-policy DPO and KTO, and GRPO with SFT: by hand, equal to the offline losses, invariances, gradients, the road."""

import math

import pytest
import torch
from tests.train.test_online_training import (  # noqa: F401 (asked is a fixture)
    ONLINE,
    OVERRIDES,
    Vowels,
    asked,
    further_is_better,
    gradients,
    make_task,
    opened,
    prepared,
    rows_of,
    run_trainer,
)

from chexalign import losses
from chexalign.judges.contract import Judgement
from chexalign.recipe.files import load_recipe
from chexalign.recipe.online import Grpo, OnlineDpo, OnlineKto, OraPo
from chexalign.recipe.preference import Dpo, Kto, LcDpo
from chexalign.run.folder import Run
from chexalign.stages.train import align
from chexalign.train.online.algorithms import algorithm_of, online_dpo
from chexalign.train.online.algorithms.base import GroupBatch, Oracle, centred
from chexalign.train.preference.algorithms import ALGORITHMS, Batch

LENGTHS = torch.tensor([[3, 5, 2, 4], [4, 1, 5, 2]])


def batch(gains, learns=None, seed=0, same=False) -> GroupBatch:
    """Two groups of four samples of up to five tokens, with policy and reference that differ unless told otherwise."""
    generator = torch.Generator().manual_seed(seed)
    tokens = (torch.arange(5) < LENGTHS[..., None]).double()
    draw = [-2 * torch.rand(2, 4, 5, generator=generator, dtype=torch.float64) * tokens for _ in range(2)]
    logps = draw[0].clone().requires_grad_()
    mask = tokens * (torch.ones(2, 4) if learns is None else torch.tensor(learns, dtype=torch.float64))[..., None]
    return GroupBatch(
        logps=logps, old_logps=draw[0], ref_logps=draw[0] if same else draw[1], mask=mask, tokens=tokens,
        advantages=torch.tensor(gains, dtype=torch.float64), weights=torch.zeros(2), max_tokens=5,
    )  # fmt: skip


GAINS = [[0.1, -0.3, 0.4, -0.2], [0.0, 0.5, -0.5, 0.0]]


# ---- DPO


def test_online_dpo_by_hand():
    """One group, three samples of one token; log-ratios −1, 2 and .5, the best is the second, the worst the first."""
    logps = torch.tensor([[[-3.0], [-1.0], [-2.5]]])
    ones = torch.ones(1, 3, 1)
    seen = GroupBatch(
        logps, logps, torch.tensor([[[-2.0], [-3.0], [-3.0]]]), ones, ones, torch.tensor([[-0.5, 0.4, 0.1]]),
        torch.zeros(1), 5,
    )  # fmt: skip
    values, metrics = online_dpo.loss(seen, OnlineDpo(beta=0.5, nll=0.3))
    assert values.tolist() == pytest.approx([math.log1p(math.exp(-0.5 * 3)) + 0.3 * 1.0])
    told = {n: m.item() for n, m in metrics.items() if n != "kl"}
    assert told == pytest.approx(
        {"paired": 1, "chosen_reward": 1.0, "rejected_reward": -0.5, "margin": 1.5, "accuracy": 1, "nll": 1.0}
    )


@pytest.mark.parametrize(("alpha", "nll"), [(0.0, 0.0), (0.0, 0.4), (0.02, 0.0)])
def test_it_is_the_offline_loss_on_the_same_pairs(alpha, nll):
    seen, twin = batch(GAINS), batch(GAINS)
    best, worst = torch.tensor([2, 1]), torch.tensor([1, 2])
    rows = torch.arange(2)

    def columns(x):
        return torch.stack([x[rows, best], x[rows, worst]], 1)

    offline = LcDpo(beta=0.7, alpha=alpha) if alpha else Dpo(beta=0.7, nll=nll)
    sums = (columns((x * twin.tokens).sum(-1)) for x in (twin.logps, twin.ref_logps))
    pairs = Batch(next(sums), columns(LENGTHS.double()), next(sums))
    expected, told = ALGORITHMS[offline.type].loss(pairs, offline)
    values, metrics = online_dpo.loss(seen, OnlineDpo(beta=0.7, alpha=alpha, nll=nll))
    assert torch.allclose(values, expected, atol=1e-12)
    assert all(torch.equal(metrics[n].double(), told[n].double()) for n in told)
    for total in (values, expected):
        total.sum().backward()
    assert torch.allclose(seen.logps.grad, twin.logps.grad, atol=1e-12) and seen.logps.grad.abs().sum() > 0


def test_the_gradient_raises_the_best_lowers_the_worst_and_leaves_the_others():
    seen = batch(GAINS)
    online_dpo.loss(seen, OnlineDpo(beta=0.7))[0].sum().backward()
    signs = seen.logps.grad.sign()
    expected = torch.zeros(2, 4)
    expected[0, 2] = expected[1, 1] = -1
    expected[0, 1] = expected[1, 2] = 1
    assert torch.equal(signs, expected[..., None] * seen.tokens)


def test_policy_equal_to_reference_gives_log_2_and_half():
    seen = batch(GAINS, same=True)
    assert online_dpo.loss(seen, OnlineDpo())[0].tolist() == pytest.approx([math.log(2)] * 2)
    values, metrics = algorithm_of(OnlineKto()).loss(seen, OnlineKto(desirable_weight=2.0, undesirable_weight=0.5))
    assert values.tolist() == pytest.approx([(2 * 1.0 + 2 * 0.25) / 4, (1.0 + 0.25) / 4])
    assert metrics["report_kl"].tolist() == [0, 0] and metrics["desirable"].tolist() == [0.5, 0.5]


def test_samples_that_may_not_learn_are_in_no_pair_and_a_group_of_ties_teaches_nothing():
    seen = batch(GAINS, learns=[[1, 1, 0, 1], [0, 1, 0, 0]])
    best, worst, paired = online_dpo.best_and_worst(seen)
    assert (best[0], worst[0]) == (0, 1) and paired.tolist() == [True, False]
    values, metrics = online_dpo.loss(seen, OnlineDpo(nll=0.5))
    values.sum().backward()
    assert values[1] == 0 and metrics["paired"].tolist() == [1, 0]
    assert (seen.logps.grad[1] == 0).all() and (seen.logps.grad[0, 2:] == 0).all()


def test_ties_go_to_the_first_of_their_kind():
    best, worst, paired = online_dpo.best_and_worst(batch([[0.3, -0.3, 0.3, -0.3], [0.0] * 4]))
    assert (best[0], worst[0]) == (0, 1) and paired.tolist() == [True, False]


def test_only_the_order_of_the_rewards_counts():
    rewards = torch.tensor([0.2, 0.9, 0.1, 0.4], dtype=torch.float64)
    values = [
        online_dpo.loss(batch([centred(r, None).tolist()] * 2), OnlineDpo())[0] for r in (rewards, 3 * rewards**3 - 1)
    ]
    assert torch.equal(*values)


# ---- KTO


def test_online_kto_by_hand():
    """Two samples of one token, log-ratios 2 and −1: KL .5; a third at the mean and a fourth that may not learn."""
    logps = torch.tensor([[[-1.0], [-3.0], [-2.0], [-2.0]]], requires_grad=True)
    ones = torch.ones(1, 4, 1)
    mask = torch.tensor([[[1.0], [1.0], [1.0], [0.0]]])
    seen = GroupBatch(
        logps, logps, torch.tensor([[[-3.0], [-2.0], [-2.5], [-2.5]]]), mask, ones,
        torch.tensor([[0.4, -0.5, 0.0, 0.1]]), torch.zeros(1), 5,
    )  # fmt: skip
    settings = OnlineKto(beta=0.5, desirable_weight=1.5, undesirable_weight=0.5)
    values, metrics = algorithm_of(settings).loss(seen, settings)
    kl = (2 - 1 + 0.5 + 0.5) / 4
    z = 0.5 * kl

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    assert values.item() == pytest.approx((1.5 * (1 - sigmoid(1.0 - z)) + 0.5 * (1 - sigmoid(z + 0.5))) / 4)
    assert metrics["report_kl"].item() == pytest.approx(kl) and metrics["desirable"].item() == 0.5
    values.sum().backward()
    assert logps.grad[0, 0] < 0 < logps.grad[0, 1] and (logps.grad[0, 2:] == 0).all()


def test_it_is_the_offline_kto_of_a_pair_given_the_same_kl():
    seen = batch([[0.0, -0.3, 0.4, 0.0], [0.0, 0.5, -0.5, 0.0]])
    rows, best, worst = torch.arange(2), torch.tensor([2, 1]), torch.tensor([1, 2])
    sums, known = seen.logps.sum(-1), seen.ref_logps.sum(-1)
    values, metrics = algorithm_of(OnlineKto()).loss(seen, OnlineKto(beta=0.3))
    for i in rows:
        pair = Batch(*(torch.stack([x[i, best[i]], x[i, worst[i]]])[None] for x in (sums, LENGTHS.double(), known)))
        pair = Batch(pair.logps, pair.lengths, pair.ref_logps, kl=metrics["report_kl"][i])
        expected, _ = ALGORITHMS["kto"].loss(pair, Kto(beta=0.3))
        assert 4 / 2 * values[i].item() == pytest.approx(expected.item())  # two of its four samples count


def test_the_kl_is_that_of_each_prompt_and_other_groups_do_not_move_it():
    """Equal values however a round is cut into micro-batches, and none when the policy has come closer than chance."""
    seen, settings = batch(GAINS), OnlineKto(beta=0.4)
    whole, metrics = algorithm_of(settings).loss(seen, settings)
    for i in range(2):
        part = GroupBatch(*(x[i : i + 1] if isinstance(x, torch.Tensor) else x for x in vars(seen).values()))
        assert algorithm_of(settings).loss(part, settings)[0].item() == pytest.approx(whole[i].item(), abs=1e-12)
    ratios = (seen.logps - seen.ref_logps).sum(-1)
    assert metrics["report_kl"].tolist() == pytest.approx(ratios.mean(1).tolist())


def test_the_samples_own_estimate_of_the_kl_is_unbiased():
    """One-token reports over four words: the mean log-ratio of many samples is the KL summed over the words."""
    policy, known = torch.tensor([0.5, 0.3, 0.15, 0.05]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    drawn = torch.multinomial(policy, 40000, replacement=True, generator=torch.Generator().manual_seed(0))
    logps, ref = policy.log()[drawn][None, :, None], known.log()[drawn][None, :, None]
    ones = torch.ones_like(logps)
    seen = GroupBatch(logps, logps, ref, ones, ones, torch.zeros(1, 40000), torch.zeros(1), 1)
    found = algorithm_of(OnlineKto()).loss(seen, OnlineKto())[1]["report_kl"].item()
    assert found == pytest.approx((policy * (policy / known).log()).sum().item(), abs=0.02)


# ---- in the task


@pytest.mark.parametrize("settings", [OnlineDpo(beta=0.5, nll=0.1), OnlineKto(beta=0.5)], ids=lambda s: s.type)
def test_groups_without_signal_are_counted_and_left_out(settings, tiny_folder, asked, monkeypatch):  # noqa: F811
    task = make_task(opened(tiny_folder), Vowels(zero={"s1"}, same={"s3"}), settings, tiny_folder)
    groups, row = task.prepare(0, asked)
    assert [g.study_id for g in groups] == ["s0", "s2", "s4"] and row["no_signal"] == pytest.approx(2 / 5)
    assert all(g.ref_logps is not None and len(g.completions) == 4 for g in groups)
    short = gradients(task, groups)
    monkeypatch.setattr("chexalign.train.online.task.OnlineTask._teaches", lambda self, group: True)
    everyone, _ = task.prepare(0, asked)
    long = gradients(task, everyone)
    assert len(everyone) == 5 and short.keys() == long.keys()
    assert all(torch.allclose(short[n], long[n], atol=1e-6) for n in short)


@pytest.mark.parametrize("settings", [OnlineDpo(beta=0.5, nll=0.1), OnlineKto(beta=0.5)], ids=lambda s: s.type)
def test_an_abstention_is_in_no_pair(settings, tiny_folder, asked):  # noqa: F811
    class Half(Vowels):
        def score(self, reports, references, studies=None):
            found = super().score(reports, references, studies)
            return [Judgement(None, "unreadable") if i % 4 == 1 else a for i, a in enumerate(found)]

    task = make_task(opened(tiny_folder), Half(), settings, tiny_folder)
    groups, _ = task.prepare(0, asked)
    output = task.module(*task.inputs(groups))
    output.retain_grad()
    task.loss(output, groups)[0].sum().backward()
    rows = output.grad.view(len(groups), 4, -1).abs().sum(-1)
    assert (rows[:, 1] == 0).all() and (rows.sum(1) > 0).all()


@pytest.mark.parametrize("settings", [OnlineDpo(beta=1.0), OnlineKto(beta=1.0)], ids=lambda s: s.type)
def test_learning_raises_the_reward(settings, tiny_folder, asked, tmp_path):  # noqa: F811
    rows, _ = run_trainer(tmp_path, tiny_folder, asked, steps=30, lr=1e-2, algorithm=settings, n=8)
    first, last = (sum(r["reward"] for r in part) / 5 for part in (rows[:5], rows[-5:]))
    assert last > first + 0.1
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6) and rows[-1]["kl"] > 1e-3
    if settings.type == "online_dpo":
        assert rows[0]["loss"] == pytest.approx(math.log(2) * rows[0]["groups"] / 4, rel=1e-3)


@pytest.mark.parametrize("name", ["online_dpo", "online_kto"])
def test_the_road_resumes_in_the_same_weights(name, tiny_run, tmp_path, monkeypatch):
    from chexalign.train.loop import Trainer

    monkeypatch.setattr("chexalign.stages.train_online.validator", further_is_better)
    whole, broken = (prepared(tiny_run, tmp_path / n) for n in ("whole", "broken"))
    more = [*OVERRIDES, *ONLINE, f"train.algorithm={{type: {name}, beta: 0.5}}"]
    runs = [Run(load_recipe("tiny", [f"run_dir={f}", *more]), f, {}) for f in (whole, broken)]
    told = align(runs[0]).extra
    append, calls = Trainer._append_log, []

    def breaking(trainer, row):
        append(trainer, row)
        calls.append(row)
        if len(calls) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_append_log", breaking)
    with pytest.raises(KeyboardInterrupt):
        align(runs[1])
    assert align(runs[1]).extra == told and told["rounds"] == 6
    one, two = ((f / "policy/model.safetensors").read_bytes() for f in (whole, broken))
    assert one == two != (whole / "baseline/model.safetensors").read_bytes()
    assert rows_of(whole) == rows_of(broken)


# ---- GRPO with SFT, and OraPO's oracle alone


def test_grpo_with_sft_by_hand():
    """Two samples of one token, ratio 1; the report has four tokens of −.5 each."""
    logps = torch.tensor([[[-1.0], [-2.0]]])
    ones = torch.ones(1, 2, 1)
    seen = GroupBatch(
        logps, logps, None, ones, ones, torch.tensor([[1.0, -0.4]]), torch.tensor([0.2]), 5,
        Oracle(torch.tensor([-2.0]), None, torch.tensor([4.0])),
    )  # fmt: skip
    values, metrics = algorithm_of(Grpo(kl=0, sft=0.2)).loss(seen, Grpo(kl=0, sft=0.2))
    assert values.tolist() == pytest.approx([-0.3 + 0.2 * 0.5])
    assert metrics["nll"].tolist() == [0.5] and metrics["policy_loss"].tolist() == pytest.approx([-0.3])


def test_sft_teaches_in_every_group_and_adds_the_reports_own_gradient(tiny_folder, asked):  # noqa: F811
    """Where no sample has a reward the gradient is that of the report's mean NLL, from `Policy.token_logps`."""
    everyone = {a.study.study_id for a in asked}
    task = make_task(opened(tiny_folder), Vowels(zero=everyone), Grpo(kl=0, sft=0.3))
    groups, row = task.prepare(0, asked)
    assert len(groups) == 5 and row["no_signal"] == 1 and all(len(g.completions) == 5 for g in groups)
    found = gradients(task, groups)
    policy = opened(tiny_folder)
    report = policy.completion_ids("The heart is normal.")
    scored = policy.token_logps([a.prompt for a in asked], [[report]] * 5)
    (0.3 * sum(-rows[0].mean() for rows in scored) / 5).backward()
    expected = {n: p.grad for n, p in policy.scorer.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[n], expected[n], atol=1e-6) for n in found)


def test_sft_of_zero_is_plain_grpo(tiny_folder, asked):  # noqa: F811
    tasks = [make_task(opened(tiny_folder), Vowels(), Grpo(kl=0.1, **s), tiny_folder) for s in ({}, {"sft": 1e-12})]
    plain, nearly = (gradients(t, t.prepare(0, asked)[0]) for t in tasks)
    assert all(torch.allclose(plain[n], nearly[n], atol=1e-6) for n in plain)
    assert {len(g.completions) for g in tasks[0]._groups} == {4}


def test_the_oracle_alone_is_ln_dpo_whatever_the_rewards_say(tiny_folder, asked):  # noqa: F811
    """`w_min: 1, w_max: 1`: no policy gradient, and groups with and without reward weigh the same."""
    settings = OraPo(kl=0, w_min=1, w_max=1, oracle_beta=0.4)
    task = make_task(opened(tiny_folder), Vowels(zero={"s1"}), settings, tiny_folder)
    groups, _ = task.prepare(0, asked)
    assert [g.weight for g in groups] == [1.0] * 5
    output = task.module(*task.inputs(groups)).detach()
    moved = output + 0.3 * torch.rand(output.shape, generator=torch.Generator().manual_seed(0)) * (output != 0)
    values, metrics = task.loss(moved, groups)
    seen = task.batch(moved, groups)
    expected = losses.ln_dpo(
        seen.oracle.logps, seen.oracle.ref_logps, seen.oracle.lengths, (seen.logps * seen.tokens).sum(-1),
        (seen.ref_logps * seen.tokens).sum(-1), seen.tokens.sum(-1), beta=0.4,
    ).mean(1)  # fmt: skip
    assert torch.allclose(values, expected, atol=1e-6) and torch.equal(metrics["oracle_weight"], torch.ones(5))
    assert not torch.allclose(values, torch.full((5,), math.log(2)), atol=1e-3)
