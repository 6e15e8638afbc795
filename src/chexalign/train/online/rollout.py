"""One round of online training: groups of samples from the current policy, and what the judge says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chexalign.judges.contract import Judge, Judgement, reward
from chexalign.judges.request import RewardRequest
from chexalign.policies.forward.generate import Sampled, stream_seed
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt
from chexalign.recipe.online import Rollout
from chexalign.records import Study


@dataclass(frozen=True)
class PromptedStudy:
    """A study as the policy is asked about it."""

    study: Study
    prompt: Prompt
    reference: str  # the radiologist's text that it should write


@dataclass(frozen=True)
class Samples:
    """What the policy wrote for one study, G times, the texts that judges read, and those as they were written."""

    asked: PromptedStudy
    sampled: tuple[Sampled, ...]
    texts: tuple[str, ...]
    written: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """One study's samples ready to learn from: the trainer's item.

    `completions` are the G samples, then the radiologist's report where the algorithm takes it. `learns[j]` is False for a
    sample that the judge abstained on or that is masked. `share` is the part of a step's groups that is worth learning
    from: the others are left out, and the step is divided as if they were there.
    """

    study_id: str
    prompt: Prompt
    completions: tuple[tuple[int, ...], ...]
    old_logps: tuple[tuple[float, ...], ...]  # per token, of the G samples
    advantages: tuple[float, ...]
    learns: tuple[bool, ...]
    weight: float = 0.0
    share: float = 1.0
    ref_logps: tuple[tuple[float, ...], ...] | None = None  # per token, of all completions


def roll_out(
    policy: Policy, asked: Sequence[PromptedStudy], settings: Rollout, seed: int, number: int
) -> list[Samples]:
    """G samples for each study. They depend on the policy, the seed, the round's number and the study alone."""
    found = []
    if policy.engine is not None:
        policy.engine.push()
    for start in range(0, len(asked), settings.batch_size):
        batch = asked[start : start + settings.batch_size]
        seeds = [stream_seed(seed, "round", number, a.study.study_id) for a in batch]
        groups = policy.generate(
            [a.prompt for a in batch],
            settings.n,
            settings.temperature,
            settings.max_new_tokens,
            seeds,
            top_p=settings.top_p,
        )
        for one, group in zip(batch, groups, strict=True):
            texts = tuple(policy.text(s.tokens) for s in group)
            raw = [policy.written(s.tokens) for s in group]
            written = tuple(t if w is None else w for t, w in zip(texts, raw, strict=True))
            found.append(Samples(one, tuple(group), texts, written))
    return found


def judge_groups(judge: Judge, groups: Sequence[Samples], number: int) -> list[list[Judgement]]:
    """The judge's answers, group by group, against each study's own reference. `number` is the step that rewards see."""
    rows = [(text, group.asked) for group in groups for text in group.texts]
    studies = [asked.study for _, asked in rows]
    names = [s.study_id for s in studies]
    if not rows:
        return []
    texts, written = [t for t, _ in rows], [w for group in groups for w in group.written]
    told = [asked.reference for _, asked in rows]
    taken = iter(reward(judge, RewardRequest(texts, told, studies, names, number, written or None)))
    return [[next(taken) for _ in group.texts] for group in groups]


def scored(answers: Sequence[Judgement]) -> tuple[Tensor, tuple[bool, ...]]:
    """The rewards that were given, (K,) float64, and which samples they belong to. An abstention is no reward at all."""
    kept = tuple(a.score is not None for a in answers)
    return torch.tensor([a.score for a in answers if a.score is not None], dtype=torch.float64), kept


def group_advantages(
    answers: Sequence[Judgement], advantages: Callable[[Tensor], Tensor]
) -> tuple[tuple[float, ...], tuple[bool, ...]]:
    """Advantages among the scored samples, 0 for the others, and which are scored."""
    rewards, kept = scored(answers)
    values = iter(advantages(rewards).tolist() if len(rewards) else ())
    return tuple(next(values) if k else 0.0 for k in kept), kept
