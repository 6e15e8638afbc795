"""Our online loop, one optimizer step at a time: the Trainer and OnlineTask that every online run uses."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from chexalign.judges.contract import Judgement
from chexalign.policies import Policy, Prompt
from chexalign.recipe.online import Grpo, Rollout, Watch
from chexalign.records import Study
from chexalign.train.loop import Trainer
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.online import task as online_task
from chexalign.train.online.algorithms.base import advantages
from chexalign.train.online.rollout import Group, PromptedStudy, group_advantages
from chexalign.train.online.task import OnlineTask
from engine_parts.setting import LR, Case, policy
from engine_parts.trl_online import TrlOnline, reward_of


class EvenWords:
    """TRL's reward function as a judge."""

    name, version = "even_words", "1"

    def score(self, reports: Sequence[str], references: Sequence[str], studies: Any = None) -> list[Judgement]:
        return [Judgement(reward_of(text)) for text in reports]


def never_ending(one: Policy) -> Policy:
    """So that all samples are equally long."""
    one.model.generation_config.eos_token_id = None
    one.tokenizer.eos_token = None
    return one


class OurOnline:
    """`step()` runs one step and returns its seconds, and `phases` those of rollout and round (rollout, rewards, reference)."""

    def __init__(
        self,
        case: Case,
        data: list[dict[str, Any]],
        folder: Path,
        steps: int,
        *,
        beta: float,
        group: int,
        length: int,
        inner: int = 1,
        stored: bool = True,
    ):
        self.policy = never_ending(policy(case))
        self.policy.reuse_features = stored
        reference = None
        if beta:
            reference = never_ending(policy(case))
            reference.model = reference.scorer.model = copy.deepcopy(self.policy.model).requires_grad_(False)
            reference.reuse_features = stored
        rollout = Rollout(n=group, max_new_tokens=length, inner_steps=inner)
        self.task = OnlineTask(
            self.policy, reference, EvenWords(), online_task.OnlineSettings(Grpo(kl=beta), rollout, Watch(), 0)
        )
        settings = LoopSettings(
            steps=steps,
            lr=LR,
            batch_size=1,
            micro_batch_size=1,
            seed=0,
            schedule="constant",
            warmup_share=0,
            repeat=inner,
        )
        self.items = [
            PromptedStudy(
                Study(f"s{i}", f"p{i}", "train", findings=r["chosen"]),
                Prompt(r["prompt"], tuple(r["names"]), folder),
                r["chosen"],
            )
            for i, r in enumerate(data)
        ]
        self.trainer: Any = Trainer(
            self.task, self.items, settings, LoopFiles(folder / "ours", folder / "ours.jsonl"), "ours"
        )
        self.phases: dict[str, list[float]] = {"rollout": [], "round": []}
        self.rows: list[dict[str, float]] = []
        original = self.task._round

        def timed(*arguments: Any) -> None:
            start = time.perf_counter()
            original(*arguments)
            self.phases["round"].append(time.perf_counter() - start)
            self.phases["rollout"].append(self.task._row["rollout_seconds"])

        vars(self.task)["_round"] = timed
        self.store_seconds = 0.0
        if stored:
            start = time.perf_counter()
            for one in [self.policy, *([reference] if reference else [])]:
                one.encode([a.prompt for a in self.items])
            self.store_seconds = time.perf_counter() - start

    def step(self) -> float:
        number = len(self.rows)
        item = self.items[number // self.task.settings.rollout.inner_steps % len(self.items)]
        start = time.perf_counter()
        self.rows.append(self.trainer._update(number, [item]))
        return time.perf_counter() - start

    def lengths(self) -> list[float]:
        """Of the last round's completions, in tokens."""
        return [float(len(t)) for g in self.task._groups for t in g.completions]

    def close(self) -> None:
        """Nothing to stop; here so that both sides are used alike."""


def same_samples(theirs: TrlOnline, ours: OurOnline, group: int) -> dict[str, float]:
    """Both sides on TRL's samples of its first prompt, before any update: differences of loss and (relative) gradient norm.

    The old log-probs are a little off those of the model, so that ratios differ from 1 and some are clipped.
    """
    batch, task, asked = theirs.first_batch(group), ours.task, ours.items[0]
    tokens = tuple(map(tuple, batch["completion_ids"].tolist()))
    answers = [Judgement(reward_of(ours.policy.text(t))) for t in tokens]
    gains, learns = group_advantages(answers, lambda r: advantages(r, task.settings.algorithm))
    made = Group("s0", asked.prompt, tokens, ((0.0,) * len(tokens[0]),) * group, gains, learns)
    with torch.no_grad():
        logps = task.module(*task.inputs([made]))
    old = logps + 0.2 * torch.randn(logps.shape, generator=torch.Generator().manual_seed(0))
    batch["old_per_token_logps"] = old
    (made,) = task._with_logps([replace(made, old_logps=tuple(map(tuple, old.tolist())))])
    value = task.loss(task.module(*task.inputs([made])), [made])[0].mean()
    loss = theirs.trainer._compute_loss(theirs.policy, batch)
    for x in (value, loss):
        x.backward()
    norms = [_norm(model) for model in (theirs.policy, ours.policy.model)]
    found = {
        "advantages": float((torch.tensor(gains) - batch["advantages"]).abs().max()),
        "trl_loss": loss.item(),
        "loss": abs(value.item() - loss.item()),
        "trl_grad_norm": norms[0],
        "grad_norm": abs(norms[1] - norms[0]) / norms[0],
    }
    if "ref_per_token_logps" in batch:
        known = torch.tensor(made.ref_logps)
        found["reference_logps"] = float((known - batch["ref_per_token_logps"]).abs().max())
    return found


def _norm(model: torch.nn.Module) -> float:
    return float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
