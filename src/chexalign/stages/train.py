"""Stage `train`: preference pairs → the aligned policy. Online algorithms, which need no pairs, are in train_online.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from chexalign.errors import WorkError
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt
from chexalign.policies.trainable import make_trainable
from chexalign.records import Pair
from chexalign.run.folder import Run, StageResult
from chexalign.run.policies import open_for_training
from chexalign.run.studies import image_root, patients_of
from chexalign.stages.train_online import train_online
from chexalign.train.batches import micro_batches
from chexalign.train.loop import Trainer, steps_for
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.output import save_policy
from chexalign.train.preference.mismatch import donors
from chexalign.train.preference.references import check_references, with_references
from chexalign.train.preference.scoring_task import Example, ScoringTask


def align(run: Run) -> StageResult:
    """Align the baseline with `train.algorithm` on pairs.jsonl; the log is train_log.jsonl, the result policy/."""
    if run.recipe.train.online:
        return train_online(run)
    settings = run.recipe.train
    pairs = run.pairs()
    if not pairs:
        raise WorkError(f"{run.path('pairs.jsonl')} holds no pair; delete it and run stage pairs again")
    policy = open_for_training(run)
    make_trainable(policy, settings.freeze, settings.lora, run.recipe.training_seed)
    policy.scorer.checkpointing = settings.gradient_checkpointing
    task = ScoringTask(policy, settings.algorithm)
    task.count_prefix = settings.micro_batch_tokens is not None
    examples = training_examples(run, policy, pairs, task)
    n = len(examples)
    trainer = Trainer(
        task,
        examples,
        LoopSettings.of(
            settings, steps=steps_for(n, settings.batch_size, settings.epochs), seed=run.recipe.training_seed
        ),
        LoopFiles(run.path("train"), run.path("train_log.jsonl")),
        f"training ({settings.algorithm.type})",
    )
    state = trainer.run()
    save_policy(policy, run.path("policy"), run.path("train"), run.recipe.policy.dtype, trainer.full_weights())
    return StageResult(len(pairs), n, {}, {"steps": state["step"]})


def training_examples(run: Run, policy: Policy, pairs: Sequence[Pair], task: ScoringTask) -> list[Example]:
    """Pairs as training examples, with references where the algorithm needs them: they are checked before they are used.

    The sampler's log-probs serve in float32. In 16-bit, where its sums and the scorer's differ by rounding, and for pairs
    from elsewhere, the policy computes them before its first update.
    """
    examples = _examples(run, policy, pairs)
    if task.algorithm.kl_completions:
        given = donors(patients_of(run, pairs), run.recipe.training_seed)
        examples = [
            _with_kl_completions(e, examples[j], task.algorithm.kl_completions)
            for e, j in zip(examples, given, strict=True)
        ]
    if not task.algorithm.uses_rejected:
        return [replace(e, completions=e.completions[:1], ref_logps=()) for e in examples]
    if task.algorithm.needs_reference:
        most, tokens = run.recipe.train.micro_batch_size, run.recipe.train.micro_batch_tokens
        cut = partial(micro_batches, size=task.size, most=most, tokens=tokens)
        path, dtype = run.path("reference_logps.jsonl"), run.recipe.policy.dtype
        examples = with_references(policy, examples, path, dtype, cut)
        check_references(examples, task, cut)
    return examples


def _examples(run: Run, policy: Policy, pairs: Sequence[Pair]) -> list[Example]:
    """Chosen and rejected of every pair. Sampled ids are used as they are; a text from elsewhere is tokenized."""
    root, exact, examples = image_root(run), run.recipe.policy.dtype == "float32", []
    for row, p in enumerate(pairs, start=1):
        for side, text, tokens in (("chosen", p.chosen, p.chosen_tokens), ("rejected", p.rejected, p.rejected_tokens)):
            if tokens and policy.text(tokens) != text.strip():
                raise WorkError(
                    f"{run.path('pairs.jsonl')}:{row}: {side}_tokens are not those of the text {side!r}, and training "
                    f"takes the tokens; if you changed the text, remove {side}_tokens and ref_{side}_logp from the row"
                )
        chosen = p.chosen_tokens or policy.completion_ids(p.chosen)
        rejected = p.rejected_tokens or policy.completion_ids(p.rejected)
        known = (p.ref_chosen_logp, p.ref_rejected_logp) if exact else (None, None)
        prompt = Prompt(p.prompt, tuple(i for i, _ in p.images), root)
        examples.append(Example(prompt, (chosen, rejected), known, p.weight))
    return examples


def _with_kl_completions(example: Example, donor: Example, kl_completions: int) -> Example:
    """The example with the donor's completions beside its own: those of another patient, under this prompt."""
    completions = (*example.completions, *donor.completions[:kl_completions])
    return replace(example, completions=completions, ref_logps=(*example.ref_logps, *(None,) * kl_completions))
