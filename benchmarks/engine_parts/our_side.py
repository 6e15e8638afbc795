"""Our loop, one optimizer step at a time: the Trainer and tasks that every run uses."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chexalign.policies.forward.logps import Scorer
from chexalign.recipe.preference import Dpo
from chexalign.train.loop import Trainer
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.preference.scoring_task import Example, ScoringTask
from engine_parts.setting import BATCH, BETA, LR, Case, examples, policy


class InlineTask(ScoringTask):
    """Nothing is stored: towers and reference are computed in the step, as in a single epoch over new images."""

    reference: Scorer
    refs: Tensor

    def inputs(self, items: Sequence[Example]) -> tuple[Any, ...]:
        self.policy.encoder.forget()
        given = super().inputs(items)
        with torch.no_grad():
            self.refs = self.reference(*given).sum(1).view(len(items), -1)
        return given

    def batch(self, token_logps: Tensor, items: Sequence[Example]) -> Any:
        known = [replace(e, ref_logps=tuple(r)) for e, r in zip(items, self.refs.tolist(), strict=True)]
        return super().batch(token_logps, known)


class OurSteps:
    """`step()` runs one step and returns its seconds; losses and gradient norms are kept."""

    def __init__(
        self,
        case: Case,
        data: list[dict[str, Any]],
        folder: Path,
        steps: int,
        algorithm: Any = None,
        inline: bool = False,
    ):
        self.policy = policy(case)
        self.rows: list[dict[str, float]] = []
        task = (InlineTask if inline else ScoringTask)(self.policy, algorithm or Dpo(beta=BETA))
        if isinstance(task, InlineTask):
            task.reference = copy.deepcopy(self.policy.scorer)
        settings = LoopSettings(
            steps=steps, lr=LR, batch_size=BATCH, micro_batch_size=BATCH, seed=0, schedule="constant", warmup_share=0.0
        )
        self.items = examples(self.policy, data, folder)
        if kl_completions := task.algorithm.kl_completions:  # KTO: those of the next pair, on this prompt
            others = self.items[BATCH:] + self.items[:BATCH]
            self.items = [
                replace(
                    e,
                    completions=(*e.completions, *o.completions[:kl_completions]),
                    ref_logps=(*e.ref_logps, *(None,) * kl_completions),
                )
                for e, o in zip(self.items, others, strict=True)
            ]
        self.trainer = Trainer(task, self.items, settings, LoopFiles(folder / "ours", folder / "ours.jsonl"), "ours")
        self.task = task
        self.vision_seconds = self.reference_seconds = self.mismatched_seconds = 0.0
        if not inline:
            self._store()

    def _store(self) -> None:
        """Tower features and reference log-probs of all examples, timed."""
        start = time.perf_counter()
        self.policy.encode([e.prompt for e in self.items])
        self.vision_seconds = time.perf_counter() - start
        start, known = time.perf_counter(), []
        with torch.no_grad():
            for first in range(0, len(self.items), BATCH):
                batch = self.items[first : first + BATCH]
                sums = self.task.module(*self.task.inputs(batch)).sum(1).view(len(batch), -1)
                known += [replace(e, ref_logps=tuple(row)) for e, row in zip(batch, sums.tolist(), strict=True)]
        self.items, self.reference_seconds = known, time.perf_counter() - start
        if (
            self.task.algorithm.kl_completions
        ):  # a run has the others from the sampler: what the mismatched ones alone would take
            start = time.perf_counter()
            with torch.no_grad():
                for first in range(0, len(known), BATCH):
                    batch = [replace(e, completions=e.completions[2:]) for e in known[first : first + BATCH]]
                    self.task.module(*self.task.inputs(batch))
            self.mismatched_seconds = time.perf_counter() - start

    @property
    def losses(self) -> list[float]:
        return [r["loss"] for r in self.rows]

    @property
    def norms(self) -> list[float]:
        return [r["grad_norm"] for r in self.rows]

    def step(self) -> float:
        first = len(self.rows) * BATCH % len(self.items)
        start = time.perf_counter()
        self.rows.append(self.trainer._update(len(self.rows), self.items[first : first + BATCH]))
        return time.perf_counter() - start

    def close(self) -> None:
        """Nothing to stop; here so that both sides are used alike."""
