"""KTO end to end: whose completions its KL is estimated on, one step by hand, one prefix pass, padding rows."""

import json
import math
from dataclasses import replace

import pytest
import torch

from chexalign.errors import WorkError
from chexalign.jsonl import read_records, write_records
from chexalign.policies import Policy
from chexalign.recipe.preference import Kto
from chexalign.records import Pair, Study
from chexalign.run.policies import open_for_training
from chexalign.stages.train import training_examples
from chexalign.train.loop import Trainer
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.preference.references import with_references
from chexalign.train.preference.scoring_task import Example, ScoringTask

KTO = Kto(beta=0.3, desirable_weight=1.2, undesirable_weight=0.8, nll=0.1)


def examples(policy, prompts, path) -> list[Example]:
    """Two sampled completions per prompt and, without gradient, the two of the next prompt."""
    groups = [[s.tokens for s in g] for g in policy.generate(prompts, 2, 1.0, 12, seed=3)]
    unknown = [
        Example(p, (*own, *other), (None,) * 4)
        for p, own, other in zip(prompts, groups, groups[1:] + groups[:1], strict=True)
    ]
    return with_references(policy, unknown, path, "float32", lambda items: [items])


def train(policy, items, folder, steps: int) -> list[dict]:
    settings = LoopSettings(steps, 1e-2, len(items), len(items), 0, "constant", 0.0, max_grad_norm=1e9)
    Trainer(ScoringTask(policy, KTO), items, settings, LoopFiles(folder / "work", folder / "log.jsonl"), "test").run()
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# ---- whose completions


def patients(run) -> dict[str, str]:
    return {s.study_id: s.patient_id for s in read_records(run.path("studies.jsonl"), Study)}


def test_free_completions_come_from_another_patient_also_where_a_study_has_several_pairs(run):
    """Three pairs for each of the first studies, and patients of three studies each: rotating by one would be caught."""
    pairs = read_records(run.path("pairs.jsonl"), Pair)
    studies = read_records(run.path("studies.jsonl"), Study)
    write_records(
        run.path("studies.jsonl"),
        [replace(s, patient_id=f"p{i // 3}") for i, s in enumerate(sorted(studies, key=Study.key))],
    )
    policy, who = open_for_training(run), patients(run)
    unique = [(p, (*p.chosen_tokens, 10 + i, 20 + j)) for i, p in enumerate(pairs) for j in range(3 if i < 6 else 1)]
    pairs = [replace(p, chosen=policy.text(t), chosen_tokens=t, ref_chosen_logp=None) for p, t in unique]
    write_records(run.path("pairs.jsonl"), pairs)
    owners: dict[tuple, set] = {}
    for p in pairs:
        for tokens in (p.chosen_tokens, p.rejected_tokens):
            owners.setdefault(tokens, set()).add(p.study_id)
    built = training_examples(run, policy, pairs, ScoringTask(policy, Kto()))
    assert len({who[p.study_id] for p in pairs}) < len({p.study_id for p in pairs}) < len(pairs)
    for pair, example in zip(pairs, built, strict=True):
        assert example.completions[:2] == (pair.chosen_tokens, pair.rejected_tokens)
        donor = owners[example.completions[2]]  # chosen tokens were made unique above
        assert len(donor) == 1 and who[pair.study_id] not in {who[s] for s in donor}
        assert any(q.study_id in donor and q.rejected_tokens == example.completions[3] for q in pairs)
        assert all(isinstance(v, float) for v in example.ref_logps)


def test_a_run_of_one_patient_and_a_study_without_patient_are_refused(run):
    studies, policy = read_records(run.path("studies.jsonl"), Study), open_for_training(run)
    pairs, task = read_records(run.path("pairs.jsonl"), Pair), ScoringTask(policy, Kto())
    write_records(run.path("studies.jsonl"), [replace(s, patient_id="one") for s in studies])
    with pytest.raises(WorkError, match="pairs.jsonl holds 1 patient;"):
        training_examples(run, policy, pairs, task)
    write_records(run.path("studies.jsonl"), [s for s in studies if s.study_id != pairs[4].study_id])
    with pytest.raises(WorkError, match=r"pairs.jsonl:5: study .* is not in studies.jsonl"):
        training_examples(run, policy, pairs, task)


# ---- the step


def by_hand(policy, items) -> tuple[torch.Tensor, float]:
    """The loss of the whole batch and its KL from `Policy.token_logps`, one completion at a time, written out."""
    ratios, nll = [], []
    for e in items:
        scored = [policy.token_logps([e.prompt], [[tokens]])[0][0] for tokens in e.completions]
        ratios.append([s.sum() - r for s, r in zip(scored, e.ref_logps, strict=True)])
        nll.append(-scored[0].mean())
    kl = sum(float(x.detach()) for row in ratios for x in row[2:]) / (2 * len(items))
    z, total = KTO.beta * max(kl, 0.0), 0.0
    for (good, bad, *_), term in zip(ratios, nll, strict=True):
        desirable = KTO.desirable_weight * (1 - torch.sigmoid(KTO.beta * good - z))
        undesirable = KTO.undesirable_weight * (1 - torch.sigmoid(z - KTO.beta * bad))
        total = total + (desirable + undesirable) / 2 + KTO.nll * term
    return total / len(items), kl


def test_a_step_equals_the_loss_and_gradient_by_hand(tiny_folder, prompts, tmp_path):
    """The second step of a run, where policy and reference differ, against a policy one step along."""
    policies = [Policy.load(tiny_folder) for _ in range(2)]
    for policy in policies:
        policy.freeze(("tower",))
    items = examples(policies[0], prompts, tmp_path / "references.jsonl")
    first, second = train(policies[0], items, tmp_path / "two", steps=2)
    train(policies[1], items, tmp_path / "one", steps=1)
    expected, kl = by_hand(policies[1], items)
    expected.backward()
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in policies[1].model.parameters() if p.grad is not None))
    assert first["kl"] == pytest.approx(0, abs=1e-4) and abs(kl) > 0.1  # the KL has moved
    assert first["loss"] == pytest.approx(0.5 + KTO.nll * first["nll"], abs=1e-3)
    assert second["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert second["kl"] == pytest.approx(kl, rel=1e-4)
    assert second["grad_norm"] == pytest.approx(norm, rel=1e-4)


def test_a_step_makes_one_prefix_pass_and_keeps_no_graph_of_the_free_completions(policy, prompts, tmp_path):
    policy.freeze(("tower",))
    items = examples(policy, prompts, tmp_path / "references.jsonl")
    task, passes = ScoringTask(policy, KTO), []
    inputs = task.inputs(items)
    prefix, ids, _, free = inputs
    handle = policy.model.model.register_forward_hook(
        lambda module, args, kwargs, out: passes.append((tuple(kwargs["input_ids"].shape), torch.is_grad_enabled())),
        with_kwargs=True,
    )
    output = task.module(*inputs)
    handle.remove()
    n, length = len(items), ids.shape[1] - 1
    assert free == 2 and len(ids) == 4 * n
    assert sorted(passes) == sorted(
        [(tuple(prefix.ids.shape), True), ((2 * n, length), False), ((2 * n, length), True)]
    )
    gradient = torch.autograd.grad(output.view(n, 4, -1)[:, 2:].sum(), policy.model.lm_head.weight, allow_unused=True)
    assert gradient[0] is None or not gradient[0].any()


def test_rows_of_weight_zero_leave_the_kl_alone_and_processes_share_it(policy, prompts, tmp_path):
    items = [
        replace(e, ref_logps=tuple(v - 0.7 * i for v in e.ref_logps))
        for i, e in enumerate(examples(policy, prompts, tmp_path / "references.jsonl"), start=1)
    ]
    task = ScoringTask(policy, KTO)

    def run_on(rows, weights=None):
        loss, metrics = task.loss(task.module(*task.inputs(rows)).detach(), rows, weights)
        return loss, metrics["kl"]

    whole, kl = run_on(items)
    padded, same = run_on([*items, items[4], items[4]], torch.tensor([1.0] * 5 + [0.0] * 2))
    assert torch.allclose(padded[:5], whole, atol=1e-5) and torch.allclose(same[:5], kl, atol=1e-4)
    shards, sent = [(items[:3], None), ([*items[3:], items[0]], torch.tensor([1.0, 1.0, 0.0]))], []
    task.gather = lambda rows: (sent.append(rows), rows)[1]
    for rows, weights in shards:
        run_on(rows, weights)
    task.gather = lambda rows: torch.cat(sent)
    parts = [run_on(rows, weights) for rows, weights in shards]
    assert torch.allclose(torch.cat([parts[0][0], parts[1][0][:2]]), whole, atol=1e-5)
    assert all(torch.allclose(k, kl[0], atol=1e-4) for _, k in parts)
