"""Stage `warmup`: a random or general model → the baseline.

Phases: tower on finding labels, finding lists, reports (SFT), and, for a start that names no finding, normal reports.

Straight SFT on reports learns the normal template and ignores the image; a tower that already knows the findings, and on
real X-rays a short phase on finding lists, ground it (docs/evidence/log.md).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from chexalign.data.tags import wrapped
from chexalign.errors import RecipeError, WorkError
from chexalign.labels.studies import FINDINGS, finding_labels, list_of_findings, tower_labels
from chexalign.policies.checkpoints.adapter import is_adapter
from chexalign.policies.checkpoints.smollm2 import checkpoint_of
from chexalign.policies.checkpoints.tiny import build_tiny
from chexalign.policies.model_of_recipe import limit_pixels, load_model
from chexalign.policies.policy import Policy
from chexalign.policies.presets import wording_of
from chexalign.policies.trainable import make_trainable, refuse_before_adapter
from chexalign.processes import is_main
from chexalign.recipe.preference import Sft
from chexalign.recipe.warmup import Phase
from chexalign.records import Study
from chexalign.run.folder import Run, StageResult
from chexalign.run.policies import prompts_for
from chexalign.run.proof import prove
from chexalign.run.studies import image_root, warmup_studies
from chexalign.run.task import reference
from chexalign.train.batches import micro_batches
from chexalign.train.loop import Trainer
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.output import main_first, save_policy, saving
from chexalign.train.preference.scoring_task import Example, ScoringTask
from chexalign.train.warmup.expert import ExpertSettings, train_expert
from chexalign.train.warmup.expert_measure import measure_expert
from chexalign.train.warmup.tower import TowerTask, centre_start, tower_examples, validate_tower

CENTRE_IMAGES = 512  # training images that the tower's start is centred on


def warm_up(run: Run) -> StageResult:
    """Run the phases with steps > 0 one after the other; each leaves a checkpoint, so a crash repeats at most one."""
    studies = run.studies()
    train, val = ([s for s in studies if s.split == split] for split in ("train", "val"))
    train = warmup_studies(run.recipe, train)
    if not val:
        raise WorkError("the warm-up needs validation studies for early stopping; raise studies.val_share")
    warmup = run.recipe.warmup
    assert warmup is not None
    phases: dict[str, tuple[Phase, Callable[..., dict[str, Any]]]] = {
        "tower": (warmup.tower, _tower_phase),
        "finding_list": (warmup.finding_lists, _finding_list_phase),
        "report": (warmup.reports, _report_phase),
        "normal_report": (warmup.normal_reports, _normal_report_phase),
    }
    work = run.path("warmup")
    with main_first():
        latest, extra = _start(run, work, train), {}
    if warmup.lora and run.recipe.train.lora:
        refuse_before_adapter(_opened(run, latest), run.recipe.train.freeze)
    if warmup.expert.steps:
        extra["expert"] = _expert(run, studies)
    for name, (phase, function) in phases.items():
        done = work / f"after_{name}"
        if phase.steps and not done.exists():
            policy = _opened(run, latest)
            policy.compute_in(run.recipe.policy.dtype)
            state = function(run, policy, phase, train, val)
            extra[f"{name}_best_step"] = state["best_step"]
            save_policy(policy, done, work / name)
        latest = done if phase.steps else latest
    save_policy(_opened(run, latest), run.path("baseline"), work / "unused", run.recipe.policy.dtype)
    if is_main():
        for folder in work.glob("after_*"):
            shutil.rmtree(folder)
    return StageResult(len(train) + len(val), len(train), {}, extra)


def _expert(run: Run, studies: Sequence[Study]) -> dict[str, Any]:
    """Train the visual judge's expert on the training split and measure it on the others; what it can is its manifest."""
    folder, settings, tiny = run.path("expert"), run.recipe.warmup, run.recipe.policy.tiny
    assert settings is not None
    if not (folder / "config.json").is_file():
        train = [s for s in studies if s.split == "train"]
        expert = ExpertSettings(settings.expert, tiny.image_size, tiny.patch_size, run.recipe.seed)
        train_expert(train, image_root(run), folder, run.path("warmup"), expert)
    return measure_expert(folder, [s for s in studies if s.split != "train"], image_root(run), run.recipe.seed)


def _start(run: Run, work: Path, train: Sequence[Study]) -> Path:
    """The checkpoint that the first phase starts from."""
    policy, start = run.recipe.policy, work / "after_start"
    if run.recipe.warmup and run.recipe.warmup.lora:
        return _base(run)
    if not start.exists():
        fresh = work / ".start.new"
        shutil.rmtree(fresh, ignore_errors=True)
        if policy.model == "tiny":
            texts = [
                *(reference(run.recipe, s) for s in train),
                *(list_of_findings(s) for s in train),
                wording_of(run.recipe).findings or "",
            ]
            texts = [wrapped(t) if policy.wrap else t for t in texts]  # so that the tags are few tokens
            with saving(work):
                build_tiny(policy.tiny, texts, fresh, run.recipe.seed)
        else:
            general = load_model(policy)
            make_trainable(general, (), None, run.recipe.seed)  # an adapter becomes part of its base
            general.save(fresh)
        fresh.rename(start)
    return start


def _base(run: Run) -> Path:
    """Where the adapter's base lies: it stays there, and the run holds the adapter alone."""
    model = checkpoint_of(run.recipe.policy.model)
    if is_adapter(model):
        raise RecipeError(
            "warmup.lora: policy.model is an adapter already; leave the warm-up out, train.lora continues it"
        )
    return Path(model)


def _opened(run: Run, folder: Path) -> Policy:
    settings = run.recipe.policy
    policy = Policy.load(str(folder), download=settings.download, trust_remote_code=settings.trust_remote_code)
    limit_pixels(policy.processor, settings)
    policy.wrap = settings.wrap
    return policy


def _settings(run: Run, phase: Phase) -> LoopSettings:
    assert run.recipe.warmup is not None
    return LoopSettings.of(phase, seed=run.recipe.seed, save_every=run.recipe.warmup.save_every)


def _tower_phase(
    run: Run, policy: Policy, phase: Phase, train: Sequence[Study], val: Sequence[Study]
) -> dict[str, Any]:
    task = TowerTask(policy, len(FINDINGS), run.recipe.seed)
    examples, held_out = (
        tower_examples(policy, prompts_for(run, policy, s), [labels(x) for x in s])
        for s, labels in (([*train, *run.labelled_studies()], tower_labels), (val, finding_labels))
    )
    if not examples or not held_out:
        raise RecipeError("warmup.tower: there are no images to learn from; set warmup.tower.steps=0 for text alone")
    work = run.path("warmup")
    if run.recipe.policy.model == "tiny":  # only a random tower: a trained one keeps its weights
        centre_start(policy.part("tower"), torch.stack([e.pixels for e in examples[:CENTRE_IMAGES]]).float())
    return Trainer(
        task,
        examples,
        _settings(run, phase),
        LoopFiles(work / "tower", work / "tower_log.jsonl"),
        "warm-up: tower on labels",
        lambda: validate_tower(task, held_out),
    ).run()


def _text_phase(
    run: Run,
    policy: Policy,
    phase: Phase,
    splits: tuple[Sequence[Study], Sequence[Study]],
    target: Callable[[Study], str],
    name: str,
) -> dict[str, Any]:
    assert run.recipe.warmup is not None
    prove(run, policy, partial(prompts_for, run, policy))
    if run.recipe.warmup.lora:
        make_trainable(policy, ("tower", "projector"), run.recipe.warmup.lora, run.recipe.seed)
    else:
        policy.freeze(("tower",))
    task = ScoringTask(policy, Sft())
    task.count_prefix = policy.processor is policy.tokenizer  # text prompts differ in length, and are cheap to count
    train, val = (
        [Example(p, (policy.completion_ids(target(s)),)) for p, s in zip(prompts_for(run, policy, x), x, strict=True)]
        for x in splits
    )
    work = run.path("warmup")

    def validate() -> dict[str, float]:
        losses = []
        for items in micro_batches(val, task.size, phase.micro_batch_size):
            losses.append(task.loss(task.module(*task.inputs(items)), items)[0])
        return {"val_loss": float(torch.cat(losses).mean())}

    label = f"warm-up: {name.replace('_', ' ')}s (SFT)"
    return Trainer(
        task, train, _settings(run, phase), LoopFiles(work / name, work / f"{name}_log.jsonl"), label, validate
    ).run()


def _finding_list_phase(
    run: Run, policy: Policy, phase: Phase, train: Sequence[Study], val: Sequence[Study]
) -> dict[str, Any]:
    return _text_phase(run, policy, phase, (train, val), list_of_findings, "finding_list")


def _report_phase(
    run: Run, policy: Policy, phase: Phase, train: Sequence[Study], val: Sequence[Study]
) -> dict[str, Any]:
    return _text_phase(run, policy, phase, (train, val), lambda s: reference(run.recipe, s), "report")


def _normal_report_phase(
    run: Run, policy: Policy, phase: Phase, train: Sequence[Study], val: Sequence[Study]
) -> dict[str, Any]:
    """Studies without a finding: what saw findings before falls back to the normal template, and keeps its sight."""
    train, val = ([s for s in x if not any(finding_labels(s))] for x in (train, val))
    if not train or not val:
        raise WorkError("warmup.normal_reports: no training or no validation study is without a finding; set steps=0")
    return _text_phase(run, policy, phase, (train, val), lambda s: reference(run.recipe, s), "normal_report")
