"""Stage `train`: preference pairs → the aligned policy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from chexalign.jsonl import read_json, read_records, write_json
from chexalign.policies.open import open_for_training
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt
from chexalign.progress import progress
from chexalign.records import Pair
from chexalign.run import Run, StageResult
from chexalign.studies import image_root
from chexalign.train.loop import Settings, Trainer, steps_for
from chexalign.train.output import save_policy
from chexalign.train.scoring_task import Example, ScoringTask

CHECKED_PAIRS = 64  # pairs whose stored reference is recomputed before training
COMPUTE_BATCH = 16  # pairs per forward pass when reference log-probs are computed


def align(run: Run) -> StageResult:
    """Align the baseline with `train.algorithm` on pairs.jsonl; the log is train_log.jsonl, the result policy/."""
    settings, pairs = run.recipe.train, read_records(run.path("pairs.jsonl"), Pair)
    policy = open_for_training(run)
    policy.freeze(settings.freeze)
    task = ScoringTask(policy, settings.algorithm)
    examples = training_examples(run, policy, pairs, task)
    n = len(examples)
    trainer = Trainer(
        task,
        examples,
        Settings(
            steps=steps_for(n, settings.batch_size, settings.epochs),
            lr=settings.lr,
            batch_size=settings.batch_size,
            micro_batch_size=settings.micro_batch_size,
            seed=run.recipe.seed,
            schedule=settings.schedule,
            warmup_share=settings.warmup_share,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            save_every=settings.save_every,
        ),
        run.path("train"),
        run.path("train_log.jsonl"),
        f"training ({settings.algorithm.type})",
    )
    state = trainer.run()
    save_policy(policy, run.path("policy"), run.path("train"), run.recipe.policy.dtype)
    return StageResult(len(pairs), n, {}, {"steps": state["step"]})


def training_examples(run: Run, policy: Policy, pairs: Sequence[Pair], task: ScoringTask) -> list[Example]:
    """Pairs as training examples. Sampled ids are used as they are; a text from elsewhere is tokenized."""
    root, algorithm = image_root(run), task.algorithm
    examples = []
    for p in pairs:
        chosen = p.chosen_tokens or policy.completion_ids(p.chosen)
        rejected = p.rejected_tokens or policy.completion_ids(p.rejected)
        completions = (chosen, rejected) if algorithm.uses_rejected else (chosen,)
        reference = None
        if p.ref_chosen_logp is not None and p.ref_rejected_logp is not None:
            reference = (p.ref_chosen_logp, p.ref_rejected_logp)
        examples.append(Example(Prompt(p.prompt, tuple(i for i, _ in p.images), root), completions, reference))
    if algorithm.needs_reference and (
        run.recipe.policy.dtype != "float32" or any(e.ref_logps is None for e in examples)
    ):
        return _with_computed_reference(run, examples, task)
    if algorithm.needs_reference:
        _check_references(examples, task)
    return examples


def _check_references(examples: Sequence[Example], task: ScoringTask) -> None:
    """Before any update the policy is the reference: recompute evenly spaced pairs and compare with what is stored."""
    some = examples[:: -(-len(examples) // CHECKED_PAIRS)]
    with torch.no_grad():
        for start in range(0, len(some), COMPUTE_BATCH):
            batch = some[start : start + COMPUTE_BATCH]
            task.check_first(task.module(*task.inputs(batch)), batch)


def _with_computed_reference(run: Run, examples: list[Example], task: ScoringTask) -> list[Example]:
    """Reference log-probs from one pass of the policy before training; kept in reference_logps.json for a resumed run.

    Used for pairs from elsewhere, and in 16-bit, where the sampler's sums and the scorer's differ by rounding.
    """
    path = run.path("reference_logps.json")
    key = hashlib.sha256(repr([(e.prompt, e.completions) for e in examples]).encode()).hexdigest()
    if not path.exists() or read_json(path)["pairs"] != key:
        values: list[list[float]] = []
        with torch.no_grad(), progress("reference log-probs", len(examples), "pairs") as ticker:
            for start in range(0, len(examples), COMPUTE_BATCH):
                batch = examples[start : start + COMPUTE_BATCH]
                output = task.module(*task.inputs(batch))
                values += output.sum(1).view(len(batch), -1).tolist()
                ticker.advance(len(batch))
        write_json(path, {"pairs": key, "logps": values})
    stored = read_json(path)["logps"]
    return [Example(e.prompt, e.completions, tuple(v)) for e, v in zip(examples, stored, strict=True)]
