"""Stage `train` of an online algorithm: the policy learns from rewards of its own samples; no pairs are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from chexalign import processes
from chexalign.errors import RecipeError, WorkError
from chexalign.jsonl import read_json, write_json
from chexalign.judges import from_recipe as load_judge
from chexalign.labels.studies import finding_labels
from chexalign.policies import adapters, engines
from chexalign.policies.parts import PARTS
from chexalign.policies.policy import Policy
from chexalign.policies.trainable import make_trainable
from chexalign.progress import say
from chexalign.recipe.online import Rollout
from chexalign.records import Study
from chexalign.run.folder import Run, StageResult
from chexalign.run.judges import REWARDS_SEE
from chexalign.run.policies import open_for_training, prompts_for
from chexalign.run.task import reference as to_be_written
from chexalign.train.batches import steps_for
from chexalign.train.checkpoint import load_weights, trainable_parameters
from chexalign.train.loop import Trainer
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.online.algorithms import algorithm_of
from chexalign.train.online.algorithms.base import OnlineStage
from chexalign.train.online.balance import balanced
from chexalign.train.online.rollout import PromptedStudy
from chexalign.train.online.task import OnlineSettings, OnlineTask, validator
from chexalign.train.output import save_policy

NEVER = 1 << 30  # validations without a better one before a stage without `patience` ends


def train_online(run: Run) -> StageResult:
    """The stages of `train.algorithm`, one after the other, each from the best weights of the one before.

    A finished stage is marked by `train/stage_<i>/done.json`, beside its best weights; an unfinished one is resumed.
    """
    train = run.recipe.train
    learnt_from = _chosen(run.studies("train"), train.rollout, run.recipe.training_seed)
    held_out = run.studies("val")[: train.watch.limit]
    if not held_out:
        raise WorkError("online training validates on the val split, which is empty: raise studies.val_share")
    rounds = train.rollout.rounds or steps_for(len(learnt_from), train.batch_size, train.epochs)
    policy = open_for_training(run)
    make_trainable(policy, train.freeze, train.lora, run.recipe.training_seed)
    policy.scorer.checkpointing = train.gradient_checkpointing
    engines.attach(policy, train.rollout.engine, run.recipe.studies.max_images)
    needed = algorithm_of(train.algorithm).reference(train.algorithm)
    reference = _frozen(run) if needed and not adapters.has_adapter(policy.model) else None
    learning, validated = (_prompted(run, policy, s) for s in (learnt_from, held_out))
    extra: dict[str, Any] = {"stages": []}
    done, stages = 0, algorithm_of(train.algorithm).stages(train, rounds)
    for number, stage in enumerate(stages, start=1):
        folder, kept = run.path(f"train/stage_{number}"), run.path(f"stages/stage_{number}")
        _learn(policy, stage, train.lora is not None, train.freeze)
        learns = what_learns(policy)
        if len(stages) > 1:
            say(f"stage {number} of {len(stages)}: {stage.rounds} rounds, learning: {_told(learns)}")
        if (folder / "done.json").is_file():
            state = read_json(folder / "done.json")
            load_weights(policy.scorer, torch.load(folder / "best.pt", weights_only=True, map_location="cpu"))
        else:
            state = _run_stage(run, policy, reference, (number, stage), done, (learning, validated))
        if number < len(stages) and not kept.exists():  # so that `evaluate` can say what each stage has brought
            save_policy(policy, kept, run.path("train/unused"))
        done += state["rounds"]
        extra["stages"].append({"reward": stage.reward, "learns": learns, **state})
    extra["rounds"] = done
    save_policy(policy, run.path("policy"), run.path("train"), run.recipe.policy.dtype)
    return StageResult(len(learnt_from), len(learnt_from), {}, extra)


def _chosen(studies: list[Study], settings: Rollout, seed: int) -> list[Study]:
    if settings.balanced and settings.studies:
        return balanced(studies, settings.studies, seed, finding_labels)
    return studies[: settings.studies]


def _prompted(run: Run, policy: Policy, studies: Sequence[Study]) -> list[PromptedStudy]:
    prompts = prompts_for(run, policy, studies)
    return [PromptedStudy(s, p, to_be_written(run.recipe, s)) for s, p in zip(studies, prompts, strict=True)]


def _frozen(run: Run) -> Policy:
    """The baseline as it is, for the KL: a second model in memory, which adapters would save."""
    reference = open_for_training(run)
    reference.freeze(())
    reference.model.requires_grad_(False)
    reference.reuse_features = True  # nothing of it ever learns
    return reference


def _learn(policy: Policy, stage: OnlineStage, lora: bool, before: Sequence[str]) -> None:
    """Let the stage's parts learn and no other."""
    if not lora:
        policy.freeze(stage.freeze)
    elif set(stage.freeze) != set(before):
        raise RecipeError("train.algorithm.freeze_2: with train.lora the same parts learn in both stages")


def what_learns(policy: Policy) -> dict[str, dict[str, int]]:
    """Part → how many of its weights learn, in how many tensors; adapters are among the part that they sit in."""
    found: dict[str, dict[str, int]] = {}
    for name, weights in trainable_parameters(policy.model).items():
        inside = (p for p in ("projector", "tower", "decoder") if any(f".{x}." in f".{name}" for x in PARTS[p]))
        part = next(inside, "head")
        count = found.setdefault(part, {"weights": 0, "tensors": 0})
        count["weights"] += weights.numel()
        count["tensors"] += 1
    return found


def _told(learns: dict[str, dict[str, int]]) -> str:
    return ", ".join(f"{part} ({count['weights']:,} weights)" for part, count in learns.items())


def _run_stage(
    run: Run,
    policy: Policy,
    reference: Policy | None,
    numbered: tuple[int, OnlineStage],
    done: int,
    prompted: tuple[list[PromptedStudy], list[PromptedStudy]],
) -> dict[str, Any]:
    """One stage, `done` rounds after the run's first; `prompted` are the studies to learn from and to validate on."""
    train, inner = run.recipe.train, run.recipe.train.rollout.inner_steps
    number, stage = numbered
    folder = run.path(f"train/stage_{number}")
    judge = load_judge(stage.reward, run.recipe.judges, REWARDS_SEE)
    settings = OnlineSettings(train.algorithm, train.rollout, train.watch, run.recipe.training_seed, done, number)
    task = OnlineTask(policy, reference, judge, settings)
    watched = load_judge(train.watch.judge, run.recipe.judges)
    trainer: Trainer[Any] = Trainer(
        task,
        prompted[0],
        LoopSettings.of(
            train,
            steps=stage.rounds * inner,
            seed=run.recipe.training_seed + done,
            eval_every=train.watch.every * inner,
            eval_first=True,
            keep=train.watch.keep,
            patience=stage.patience or NEVER,
            repeat=inner,
            first_step=done * inner,
        ),
        LoopFiles(folder, run.path("train_log.jsonl")),
        f"training ({train.algorithm.type}, {stage.reward})",
        validator(policy, watched, prompted[1], train.rollout, train.watch.judge, train.watch.temperature),
    )
    state = trainer.run()
    if state["best_step"] == 0:
        say(f"no weights were better than those at the start by {train.watch.judge}: those are kept")
    summary = {
        "rounds": state["step"] // inner,
        "best_round": state["best_step"] // inner,
        f"best_{train.watch.judge}": -state["best"],
        "rounds_out_of_bounds": task.warned,
    }
    if processes.is_main():
        write_json(folder / "done.json", summary)
    return summary
