"""The one loop: batches, weights of examples, exact step-0 margins, early stopping."""

import json

import pytest
import torch

from chexalign.errors import WorkError
from chexalign.recipe import Dpo, Sft
from chexalign.train.loop import Settings, Trainer, batches, epoch_order, steps_for
from chexalign.train.scoring_task import Example, ScoringTask

SETTINGS = {"steps": 3, "lr": 1e-3, "batch_size": 4, "seed": 0, "schedule": "constant", "warmup_share": 0.0}


def examples(policy, prompts, shift: float = 0.0) -> list[Example]:
    """Two sampled completions per prompt with the policy's own log-probs as reference, moved by `shift` nats."""
    groups = policy.generate(prompts, 2, 1.0, 12, seed=3)
    return [
        Example(p, tuple(s.tokens for s in g), tuple(s.logp + shift for s in g))
        for p, g in zip(prompts, groups, strict=True)
    ]


def train(policy, items, tmp_path, algorithm, **changes):
    settings = Settings(**{**SETTINGS, "micro_batch_size": 4, **changes})
    Trainer(ScoringTask(policy, algorithm), items, settings, tmp_path / "work", tmp_path / "log.jsonl", "test").run()
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
    settings = Settings(**{**SETTINGS, "steps": 50, "micro_batch_size": 4, "eval_every": 1, "patience": 2})
    trainer = Trainer(
        ScoringTask(policy, Sft()), items, settings, tmp_path / "work", tmp_path / "log.jsonl", "test", validate
    )
    state = trainer.run()
    assert state["stopped"] and state["best_step"] == 2 and len(snapshots) == 4
    assert torch.equal(policy.model.lm_head.weight, snapshots[1])


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
