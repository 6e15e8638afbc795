"""The one loop: batches, weights of examples, exact step-0 margins, early stopping."""

import json

import pytest
import torch

from chexalign.errors import RecipeError, WorkError
from chexalign.recipe.preference import Dpo, Sft
from chexalign.train.batches import micro_batches, shard
from chexalign.train.checkpoint import load_weights
from chexalign.train.loop import Trainer, batches, epoch_order, steps_for
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.optimiser import make_optimiser
from chexalign.train.preference.scoring_task import Example, ScoringTask

SETTINGS = {"steps": 3, "lr": 1e-3, "batch_size": 4, "seed": 0, "schedule": "constant", "warmup_share": 0.0}


def examples(policy, prompts, shift: float = 0.0) -> list[Example]:
    """Two sampled completions per prompt with the policy's own log-probs as reference, moved by `shift` nats."""
    groups = policy.generate(prompts, 2, 1.0, 12, seed=3)
    return [
        Example(p, tuple(s.tokens for s in g), tuple(s.logp + shift for s in g))
        for p, g in zip(prompts, groups, strict=True)
    ]


def train(policy, items, tmp_path, algorithm, **changes):
    settings = LoopSettings(**{**SETTINGS, "micro_batch_size": 4, **changes})
    task = ScoringTask(policy, algorithm)
    task.count_prefix = settings.micro_batch_tokens is not None
    Trainer(task, items, settings, LoopFiles(tmp_path / "work", tmp_path / "log.jsonl"), "test").run()
    return [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]


def test_every_example_is_seen_once_an_epoch():
    seen = [i for epoch, indices in batches(10, 4, seed=1, steps=steps_for(10, 4, 2)) for i in indices if epoch == 1]
    assert sorted(seen) == list(range(10)) and seen == epoch_order(10, 1, 1) != epoch_order(10, 1, 0)


def test_micro_batches_do_not_change_the_update(tiny_folder, prompts, tmp_path):
    from chexalign.policies import Policy

    logs, weights = [], []
    for size in (4, 3, 1):
        policy = Policy.load(tiny_folder)
        policy.freeze(("tower",))
        logs.append(
            train(
                policy, examples(policy, prompts), tmp_path / str(size), Dpo(beta=0.5, nll=0.1), micro_batch_size=size
            )
        )
        weights.append(policy.model.lm_head.weight.detach().clone())
    for log in logs[1:]:
        assert [r["loss"] for r in log] == pytest.approx([r["loss"] for r in logs[0]], rel=1e-4)
        assert [r["grad_norm"] for r in log] == pytest.approx([r["grad_norm"] for r in logs[0]], rel=1e-3)
    assert torch.allclose(weights[0], weights[2], atol=1e-4)


def test_micro_batches_hold_the_count_and_the_token_budget():
    cut = micro_batches([5, 1, 9, 2, 2, 30, 8], lambda n: n, most=3, tokens=20)
    assert cut == [[1, 2, 2], [5, 8], [9], [30]]  # 3 × 9 and even 3 × 8 are too many, 30 has to go alone
    assert all(len(c) <= 3 and (len(c) * max(c) <= 20 or len(c) == 1) for c in cut)
    assert micro_batches([3, 1, 2], lambda n: n, most=2) == [[1, 2], [3]]


def test_shards_are_a_partition_and_nobody_is_idle():
    for n in range(1, 8):
        shards = [shard(list(range(n)), rank, 3) for rank in range(3)]
        assert sorted(i for items, w in shards for i, x in zip(items, w, strict=True) if x) == list(range(n))
        assert all(items and len(items) == len(w) for items, w in shards)
        assert all(items == [0] and w == [0.0] for items, w in shards[n:])


def test_a_token_budget_does_not_change_the_update(tiny_folder, prompts, tmp_path):
    from chexalign.policies import Policy

    losses, passes = [], []
    for tokens in (None, 90):
        policy = Policy.load(tiny_folder)
        policy.scorer.register_forward_hook(lambda m, a, y: passes.append(a[0].ids.numel() + a[1].numel()))
        rows = train(
            policy, examples(policy, prompts), tmp_path / str(tokens), Dpo(beta=0.5), micro_batch_tokens=tokens
        )
        losses.append([r["loss"] for r in rows])
        passes.append(0)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    whole, cut = passes[: passes.index(0)], passes[passes.index(0) + 1 : -1]
    assert len(whole) == 3 < len(cut) and max(whole) > 90 >= max(cut)


def test_wrong_references_stop_the_run(policy, prompts, tmp_path):
    with pytest.raises(WorkError, match="step-0 margins are not zero"):
        train(policy, examples(policy, prompts, shift=1.0), tmp_path, Dpo())


def test_dpo_starts_at_log_2_and_learns(policy, prompts, tmp_path):
    rows = train(policy, examples(policy, prompts), tmp_path, Dpo(beta=0.5), steps=12)
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert rows[-1]["loss"] < 0.4 and rows[-1]["margin"] > 0.5


def test_sft_lowers_the_loss_and_freezing_holds(policy, prompts, tmp_path):
    policy.freeze(("tower", "decoder"))
    before = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
    items = [Example(p, (policy.completion_ids("No pneumothorax."),)) for p in prompts]
    rows = train(policy, items, tmp_path, Sft(), steps=6)
    assert rows[-1]["loss"] < rows[0]["loss"]
    moved = {n for n, p in policy.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all("multi_modal_projector" in n for n in moved)


def test_a_model_of_which_nothing_learns_is_refused(policy, prompts, tmp_path):
    policy.freeze(("tower", "projector", "decoder"))
    with pytest.raises(RecipeError, match="nothing would learn"):
        train(policy, examples(policy, prompts), tmp_path, Dpo())


def test_a_loss_that_is_not_finite_stops_the_run(policy, prompts, tmp_path):
    with torch.no_grad():
        policy.model.lm_head.weight.fill_(float("inf"))
    items = [Example(p, ((5, 2),)) for p in prompts]
    with pytest.raises(WorkError, match="not finite"):
        train(policy, items, tmp_path, Sft())


def test_early_stopping_keeps_the_best_weights(policy, prompts, tmp_path):
    losses = iter([3.0, 1.0, 2.0, 2.5, 0.1])
    snapshots = []

    def validate():
        snapshots.append(policy.model.lm_head.weight.detach().clone())
        return {"val_loss": next(losses)}

    items = [Example(p, (policy.completion_ids("No pneumothorax."),)) for p in prompts]
    settings = LoopSettings(**{**SETTINGS, "steps": 50, "micro_batch_size": 4, "eval_every": 1, "patience": 2})
    trainer = Trainer(
        ScoringTask(policy, Sft()),
        items,
        settings,
        LoopFiles(tmp_path / "work", tmp_path / "log.jsonl"),
        "test",
        validate,
    )
    state = trainer.run()
    assert state["stopped"] and state["best_step"] == 2 and len(snapshots) == 4
    assert torch.equal(policy.model.lm_head.weight, snapshots[1])


def test_the_last_weights_are_kept_where_they_are_asked_for(policy, prompts, tmp_path):
    """The first validation is the best; `best.pt`, which a resumed run reads, has the last weights too."""
    losses = iter([1.0, 2.0, 3.0])
    items = [Example(p, (policy.completion_ids("No pneumothorax."),)) for p in prompts]
    given = {
        **SETTINGS,
        "steps": 2,
        "micro_batch_size": 4,
        "eval_every": 1,
        "eval_first": True,
        "keep": "last",
        "patience": 9,
    }
    task, work = ScoringTask(policy, Sft()), tmp_path / "work"
    before = policy.model.lm_head.weight.detach().clone()
    state = Trainer(
        task,
        items,
        LoopSettings(**given),
        LoopFiles(work, tmp_path / "log.jsonl"),
        "test",
        lambda: {"val_loss": next(losses)},
    ).run()
    after = policy.model.lm_head.weight.detach().clone()
    assert state["best_step"] == 2 and state["best"] == 1.0 and not torch.equal(after, before)
    with torch.no_grad():
        policy.model.lm_head.weight.zero_()
    load_weights(task.module, torch.load(work / "best.pt", weights_only=True))
    assert torch.equal(policy.model.lm_head.weight, after)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[0]["before_val_loss"] == 1.0 and "before_val_loss" not in rows[1]


def test_a_16_bit_recipe_moves_its_weights_at_a_small_rate(policy, prompts, tmp_path):
    """An AdamW step of 1e-6 is below bfloat16's spacing: the weights stay in float32 and only the products are 16-bit."""
    policy.freeze(("tower",))
    items = examples(policy, prompts)
    full = policy.token_logps([i.prompt for i in items], [i.completions for i in items])
    policy.compute_in("bfloat16")
    half = policy.token_logps([i.prompt for i in items], [i.completions for i in items])
    gaps = [
        float((a - b).detach().abs().max()) for x, y in zip(full, half, strict=True) for a, b in zip(x, y, strict=True)
    ]
    assert 0 < max(gaps) < 0.1
    before = {n: p.detach().clone() for n, p in policy.model.named_parameters() if p.requires_grad}
    train(policy, [Example(i.prompt, i.completions) for i in items], tmp_path, Sft(), lr=1e-6, steps=4)
    after = dict(policy.model.named_parameters())
    moved = sum(int((after[n] != p).sum()) for n, p in before.items()) / sum(p.numel() for p in before.values())
    assert moved > 0.3  # embeddings of unused tokens have no gradient


# ---- optimisers, the moving average, exact resume


class Stop(Exception):
    """Stands for a crash after a given step."""


def interrupted(monkeypatch, policy, items, folder, stop: int, **changes) -> None:
    """Train until `stop` rows are logged; what later steps would have changed is not on the disk."""

    def dying(self, row, write=Trainer._append_log):
        write(self, row)
        if row["step"] == stop:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_append_log", dying)
        with pytest.raises(Stop):
            train(policy, items, folder, Dpo(beta=0.5), **changes)


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimiser": "adafactor"}, {"ema": 0.9}, {"schedule": "linear", "warmup_share": 0.3}],
    ids=["adamw", "adafactor", "ema", "linear"],
)
def test_an_interrupted_run_ends_in_the_same_weights(policy, prompts, tiny_folder, tmp_path, monkeypatch, changes):
    from chexalign.policies import Policy

    policy.freeze(("tower",))
    items, changes = examples(policy, prompts), {"steps": 8, "save_every": 3, **changes}
    rows = train(policy, items, tmp_path / "whole", Dpo(beta=0.5), **changes)
    assert rows[-1]["loss"] < rows[0]["loss"]
    for crash in range(2):
        twin = Policy.load(tiny_folder)
        twin.freeze(("tower",))
        if crash == 0:
            interrupted(monkeypatch, twin, items, tmp_path / "cut", 4, **changes)
        else:
            again = train(twin, items, tmp_path / "cut", Dpo(beta=0.5), **changes)
    timeless = [[{k: v for k, v in r.items() if k != "seconds"} for r in log] for log in (rows, again)]
    assert timeless[0] == timeless[1]
    one, two = policy.model.state_dict(), twin.model.state_dict()
    assert all(torch.equal(one[n], two[n]) for n in one)


def test_a_checkpoint_holds_only_what_learns(policy, prompts, tmp_path):
    policy.freeze(("tower", "decoder"))
    train(policy, examples(policy, prompts), tmp_path, Dpo(), save_every=2)
    saved = torch.load(tmp_path / "work/checkpoint/state.pt", weights_only=True)["model"]
    assert saved and all("multi_modal_projector" in n for n in saved)


def test_the_moving_average_is_what_is_left(policy, prompts, tiny_folder, tmp_path):
    """a ← d·a + (1 − d)·w over the weights after each step, from the start's; by hand over a run of its own."""
    from chexalign.policies import Policy

    items = examples(policy, prompts)
    name, decay = "lm_head.weight", 0.5
    average = policy.model.get_parameter(name).detach().clone()
    for steps in (1, 2, 3):
        plain = Policy.load(tiny_folder)
        train(plain, items, tmp_path / str(steps), Dpo(beta=0.5), steps=steps)
        average = decay * average + (1 - decay) * plain.model.get_parameter(name).detach()
    train(policy, items, tmp_path / "ema", Dpo(beta=0.5), steps=3, ema=decay)
    assert torch.allclose(policy.model.get_parameter(name), average, atol=1e-6)
    assert not torch.allclose(policy.model.get_parameter(name), plain.model.get_parameter(name), atol=1e-4)


def test_early_stopping_sees_and_keeps_averaged_weights(policy, prompts, tmp_path):
    seen = []

    def validate():
        seen.append(policy.model.lm_head.weight.detach().clone())
        return {"val_loss": [2.0, 1.0, 3.0][len(seen) - 1]}

    items = [Example(p, (policy.completion_ids("No pneumothorax."),)) for p in prompts]
    settings = LoopSettings(**{**SETTINGS, "micro_batch_size": 4, "eval_every": 1, "patience": 5, "ema": 0.99})
    start = policy.model.lm_head.weight.detach().clone()
    Trainer(
        ScoringTask(policy, Sft()), items, settings, LoopFiles(tmp_path / "w", tmp_path / "l.jsonl"), "test", validate
    ).run()
    assert torch.equal(policy.model.lm_head.weight, seen[1])
    assert 0 < float((seen[1] - start).abs().max()) < 3e-5  # two steps of 1e-3, seen through an average of 100


def test_the_last_weights_of_a_run_with_an_average_are_the_average(prompts, tiny_folder, tmp_path):
    """`keep: last` once left the raw weights there, so that `ema` changed no byte."""
    from chexalign.policies import Policy

    def trained(name, **given):
        policy = Policy.load(tiny_folder)
        items = [Example(p, (policy.completion_ids("No pneumothorax."),)) for p in prompts]
        settings = LoopSettings(**{**SETTINGS, "micro_batch_size": 4, "eval_every": 9, "patience": 5, **given})
        log = tmp_path / f"{name}.jsonl"
        Trainer(
            ScoringTask(policy, Sft()), items, settings, LoopFiles(tmp_path / name, log), "t", lambda: {"val_loss": 0.0}
        ).run()
        return policy.model.lm_head.weight.detach().clone()

    start = Policy.load(tiny_folder).model.lm_head.weight.detach()
    raw, average = trained("raw", keep="last"), trained("average", keep="last", ema=0.99)
    assert 0 < float((average - start).abs().max()) < 0.1 * float((raw - start).abs().max())


def test_adafactor_keeps_far_less_than_adamw(policy):
    sizes = {}
    for name in ("adamw", "adafactor"):
        parameters = [torch.nn.Parameter(torch.ones(64, 128))]
        optimiser = make_optimiser(name, parameters, 1e-3, 0.0)
        parameters[0].grad = torch.ones(64, 128)
        optimiser.step()
        sizes[name] = sum(v.numel() for s in optimiser.state.values() for v in s.values() if torch.is_tensor(v))
        assert float(parameters[0].detach().max()) == pytest.approx(1 - 1e-3, abs=1e-5)  # the rate means the same
    assert sizes["adafactor"] < sizes["adamw"] / 50


def test_8_bit_adamw_without_its_library_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(RecipeError, match="pip install bitsandbytes"):
        make_optimiser("adamw_8bit", [torch.nn.Parameter(torch.ones(1))], 1e-3, 0.0)
