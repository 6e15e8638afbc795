"""The task of every online algorithm: roll out, reward, turn rewards into advantages, hand log-probs to the algorithm."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from chexalign import processes
from chexalign.errors import WorkError
from chexalign.judges.contract import Judge, Judgement
from chexalign.policies.policy import Policy
from chexalign.progress import say
from chexalign.recipe.online import Rollout, Watch
from chexalign.train.online.algorithms import algorithm_of
from chexalign.train.online.algorithms.base import GroupBatch, Oracle
from chexalign.train.online.rollout import (
    Group,
    PromptedStudy,
    Samples,
    group_advantages,
    judge_groups,
    roll_out,
    scored,
)
from chexalign.train.online.stats import finding_stats, out_of_bounds, reward_stats, text_stats
from chexalign.train.preference.scoring_task import STEP_0_TOLERANCE

NO_SCORE = "the reward could be given to none of this round's samples"


@dataclass(frozen=True)
class OnlineSettings:
    """What a task needs of a recipe beside its algorithm."""

    algorithm: Any
    rollout: Rollout
    watch: Watch
    seed: int
    first_round: int = 0  # number of this stage's first round
    stage: int = 1


class OnlineTask:
    """`reference` is a frozen copy of the baseline, or None where adapters can be taken off instead."""

    def __init__(self, policy: Policy, reference: Policy | None, judge: Judge, settings: OnlineSettings):
        self.policy = policy
        self.reference = reference
        self.judge = judge
        self.settings = settings
        self.algorithm = algorithm_of(settings.algorithm)
        self.module: nn.Module = policy.scorer
        for scored_by in (policy, reference):
            if scored_by is not None:  # as TRL does: ratios and KL are those of the distribution that was sampled from
                scored_by.scorer.temperature = settings.rollout.temperature
        self.memory: dict[str, float] = {}  # what the algorithm remembers, a number per study
        self.warned: dict[str, int] = {}  # rounds in which each bound was left
        self._groups: list[Group] = []
        self._row: dict[str, float] = {}

    # ---- a round

    def prepare(self, step: int, asked: Sequence[PromptedStudy]) -> tuple[list[Group], dict[str, float]]:
        """Groups to learn from, and the round's numbers. Inner steps take the groups of their round again."""
        inner = self.settings.rollout.inner_steps
        if step % inner == 0:
            self._round(self.settings.first_round + step // inner, asked)
        return self._groups, self._row

    def _round(self, number: int, asked: Sequence[PromptedStudy]) -> None:
        """Each process serves its part of the studies; all learn of every group."""
        mine, start = asked[processes.rank() :: processes.count()], time.monotonic()
        with torch.no_grad():
            samples = roll_out(self.policy, mine, self.settings.rollout, self.settings.seed, number)
        sampled = time.monotonic()
        answers = judge_groups(self.judge, samples, number)
        seconds = {"rollout_seconds": sampled - start, "reward_seconds": time.monotonic() - sampled}
        groups = [self._group(s, a) for s, a in zip(samples, answers, strict=True)]
        teaching = [g for g in groups if self._teaches(g)]
        size = self.settings.rollout.batch_size
        scored_groups = [g for i in range(0, len(teaching), size) for g in self._with_logps(teaching[i : i + size])]
        if processes.count() > 1:
            samples, answers, scored_groups = (gather_object(x) for x in (samples, answers, scored_groups))
            self.memory |= dict(gather_object(list(self.memory.items())))
        self._groups = [replace(g, share=len(scored_groups) / len(asked)) for g in scored_groups]
        self._row = self._numbers(number, samples, answers, seconds)

    def _numbers(
        self, number: int, samples: list[Samples], answers: list[list[Judgement]], seconds: dict[str, float]
    ) -> dict[str, float]:
        row: dict[str, float] = {"round": number, "stage": self.settings.stage, "groups": len(self._groups)}
        row |= {**reward_stats(answers), **text_stats(samples)}
        if row["coverage"] == 0:
            reason = next(a.error for group in answers for a in group)
            raise WorkError(f"{NO_SCORE}: judge {self.judge.name}: {reason}")
        for name, line in out_of_bounds(row, self.settings.watch).items():
            if name not in self.warned:
                say(f"warning: round {number}: {line}; the run may be collapsing (train.watch.{name})")
            self.warned[name] = self.warned.get(name, 0) + 1
            row[f"warn_{name}"] = 1
        tokens = sum(len(s.tokens) for g in samples for s in g.sampled)
        return {**row, **seconds, "tokens_per_second": tokens / max(seconds["rollout_seconds"], 1e-9)}

    def _group(self, samples: Samples, answers: Sequence[Judgement]) -> Group:
        settings, study = self.settings.algorithm, samples.asked.study
        gains, kept = group_advantages(answers, lambda rewards: self.algorithm.advantages(rewards, settings))
        cut = self.settings.rollout.mask_truncated
        learns = tuple(
            k and not (cut and s.finish_reason == "length") for k, s in zip(kept, samples.sampled, strict=True)
        )
        own = (self.policy.completion_ids(samples.asked.reference),) if self.algorithm.oracle(settings) else ()
        return Group(
            study_id=study.study_id,
            prompt=samples.asked.prompt,
            completions=(*(s.tokens for s in samples.sampled), *own),
            old_logps=tuple(s.token_logps for s in samples.sampled),
            advantages=gains,
            learns=learns,
            weight=self.algorithm.weigh(study.study_id, scored(answers)[0], self.memory, settings),
        )

    def _teaches(self, group: Group) -> bool:
        """False for a group without signal: all of its rewards equal, none given, or none of its samples may learn."""
        return group.weight > 0 or any(a and k for a, k in zip(group.advantages, group.learns, strict=True))

    @torch.no_grad()
    def _with_logps(self, groups: Sequence[Group]) -> list[Group]:
        """The reference's log-probs; in 16-bit also the old ones, which a sampler's other rounding would move, and away
        from temperature 1, where the sampler's are not those of what it drew.

        The reference encodes the prompts itself: an earlier stage may have moved the policy's tower.
        """
        if self.policy.scorer.compute_dtype is not None or self.settings.rollout.temperature != 1:
            rows = _ragged(self.policy.scorer(*self.inputs(groups)), groups)
            groups = [replace(g, old_logps=r[: len(g.old_logps)]) for g, r in zip(groups, rows, strict=True)]
        if not self.algorithm.reference(self.settings.algorithm):
            return list(groups)
        with self.policy.reference() if self.reference is None else nullcontext():
            asked = self.reference or self.policy
            rows = _ragged(asked.scorer(*self.inputs(groups, asked)), groups)
        return [replace(g, ref_logps=r) for g, r in zip(groups, rows, strict=True)]

    # ---- what the loop asks

    def inputs(self, items: Sequence[Group], policy: Policy | None = None) -> tuple[Any, ...]:
        """B prompts, and ids and mask (B·G, T) of all their completions. `policy`: another than the one that learns."""
        asked = policy or self.policy
        ids, mask = asked.pad_completions([tokens for g in items for tokens in g.completions])
        return asked.encode([g.prompt for g in items]), ids, mask

    def loss(
        self, output: Tensor, items: Sequence[Group], weights: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Per-group values and metrics, (B,)."""
        values, metrics = self.algorithm.loss(self.batch(output, items), self.settings.algorithm)
        return values * output.new_tensor([g.share for g in items]), metrics

    def batch(self, output: Tensor, items: Sequence[Group]) -> GroupBatch:
        """(B·C, T) log-probs of all completions → those of the samples (B, G, T), and of the report where it is among them."""
        length, samples = output.shape[1], len(items[0].old_logps)
        logps = output.view(len(items), -1, length)
        shape = (len(items), samples, length)

        def padded(rows: Sequence[Sequence[float]]) -> Tensor:
            return output.new_tensor([[*row, *[0.0] * (length - len(row))] for row in rows])

        tokens = padded([[1.0] * len(t) for g in items for t in g.completions[:samples]]).view(shape)
        learns = output.new_tensor([g.learns for g in items])
        known, oracle = None, None
        if items[0].ref_logps is not None:
            known = padded([row for g in items for row in g.ref_logps or ()]).view(logps.shape)
        if self.algorithm.oracle(self.settings.algorithm):
            lengths = output.new_tensor([len(g.completions[-1]) for g in items])
            oracle = Oracle(logps[:, -1].sum(-1), None if known is None else known[:, -1].sum(-1), lengths)
        return GroupBatch(
            logps=logps[:, :samples],
            old_logps=padded([row for g in items for row in g.old_logps]).view(shape),
            ref_logps=None if known is None else known[:, :samples],
            mask=tokens * learns[:, :, None],
            tokens=tokens,
            advantages=output.new_tensor([g.advantages for g in items]),
            weights=output.new_tensor([g.weight for g in items]),
            max_tokens=self.settings.rollout.max_new_tokens,
            oracle=oracle,
        )

    def size(self, item: Group) -> int:
        """Tokens of a group's completions after padding."""
        return len(item.completions) * max(map(len, item.completions))

    def check_first(self, output: Tensor, items: Sequence[Group]) -> None:
        """Before any update each sample's log-probs are those it was drawn with (in 32 bits; 16-bit ones are recomputed)."""
        batch = self.batch(output.detach(), items)
        gap = float(((batch.logps - batch.old_logps).abs() * batch.tokens).max())
        if self.policy.scorer.compute_dtype is None and gap > STEP_0_TOLERANCE:
            raise WorkError(
                f"the sampler's and the scorer's log-probs differ by {gap:.4f} nats at a token before any update"
            )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know beside weights: the moving averages by study, and what was warned of."""
        return {"memory": self.memory, "warned": self.warned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The other way of `state_dict`."""
        self.memory = state["memory"]
        self.warned = state["warned"]


def validator(
    policy: Policy, judge: Judge, asked: Sequence[PromptedStudy], settings: Rollout, name: str, temperature: float = 0.0
) -> Callable[[], dict[str, float]]:
    """One report per validation study, judged: greedy, or drawn with the same random numbers each time.

    `val_loss` is −mean, since the loop keeps the lowest.
    """
    one_each = settings.model_copy(update={"n": 1, "temperature": temperature})

    def validate() -> dict[str, float]:
        groups = roll_out(policy, asked, one_each, 0, 0)
        answers = [a for g in judge_groups(judge, groups, 0) for a in g]
        given = [a.score for a in answers if a.score is not None]
        if not given:
            raise WorkError(f"validation judge {name} abstained on every report: {answers[0].error}")
        mean, found = sum(given) / len(given), finding_stats([(g.texts[0], g.asked.reference) for g in groups])
        return {"val_loss": -mean, f"val_{name}": mean, "val_abstained": 1 - len(given) / len(answers), **found}

    return validate


def _ragged(rows: Tensor, groups: Sequence[Group]) -> list[tuple[tuple[float, ...], ...]]:
    """Padded rows (B·C, T) → per group one tuple per completion, of its own length."""
    taken = iter(rows.tolist())
    return [tuple(tuple(next(taken)[: len(c)]) for c in g.completions) for g in groups]
