"""DPO over LoRA on SmolLM2-135M, findings → impression of OpenI: TRL's DPOTrainer and our Trainer, one step at a time."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from trl import DPOConfig

from chexalign.data.masks import unmasked
from chexalign.data.openi import read_openi
from chexalign.policies import Policy, Prompt, build_prompt
from chexalign.policies.checkpoints.smollm2 import checkpoint_of
from chexalign.policies.presets import wording
from chexalign.policies.trainable import _targets, make_trainable
from chexalign.recipe.policy import Lora
from chexalign.recipe.preference import Dpo
from chexalign.train.loop import Trainer
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.preference.scoring_task import Example, ScoringTask
from engine_parts.our_side import InlineTask
from engine_parts.setting import BETA, LR
from engine_parts.trl_side import _Recording
from engine_parts.turns import Recorded

LORA = Lora(r=16, alpha=32)
PROMPT_TOKENS, COMPLETION_TOKENS = (80, 150), (15, 40)  # of the pairs taken


def policy() -> Policy:
    """With a fresh adapter on the decoder's linear layers; the base in float32, as a run loads it."""
    one = Policy.load(checkpoint_of("smollm2"))
    make_trainable(one, ("tower",), LORA, seed=0)
    return one


def pairs(one: Policy, n: int) -> list[dict[str, str]]:
    """A study's impression against that of the study before it, as the recipe asks and in OpenI's order."""
    asked = wording("smollm2", "auto", None, "impression")
    found: list[dict[str, str]] = []
    before = None
    for study in map(unmasked, read_openi(None, lambda _: "train")):
        if not (study.findings and study.impression):
            continue
        prompt = build_prompt(study, asked, one.processor, Path("."), 0).text
        length, own = (len(one.tokenizer(t)["input_ids"]) for t in (prompt, study.impression))
        low, high = COMPLETION_TOKENS
        if low <= own < high and PROMPT_TOKENS[0] <= length <= PROMPT_TOKENS[1]:
            if before and before != study.impression:
                found.append({"prompt": prompt, "chosen": study.impression, "rejected": before})
            before = study.impression
        if len(found) == n:
            break
    return found


class TrlLora(Recorded):
    """TRL's own reference: adapters off, in the step or (`stored`) before the first."""

    def __init__(self, ours: Policy, data: list[dict[str, str]], folder: Path, steps: int, batch: int, stored: bool):
        super().__init__()
        base = Policy.load(checkpoint_of("smollm2"))
        arguments = DPOConfig(
            output_dir=str(folder / f"trl-{stored}"),
            per_device_train_batch_size=batch,
            max_steps=steps,
            learning_rate=LR,
            lr_scheduler_type="constant",
            beta=BETA,
            precompute_ref_log_probs=stored,
            report_to=[],
            logging_steps=10**6,
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            max_length=None,
            gradient_checkpointing=False,
            disable_tqdm=True,
        )
        targets = _targets(base.model, LORA)
        start = time.perf_counter()
        self.trainer: Any = _Recording(
            model=base.model,
            args=arguments,
            train_dataset=Dataset.from_list(data),
            processing_class=base.tokenizer,
            peft_config=LoraConfig(r=LORA.r, lora_alpha=LORA.alpha, lora_dropout=0.0, target_modules=targets),
            callbacks=[self.turns],
        )
        self.start_seconds = time.perf_counter() - start  # with `stored`, the reference's pass is in it
        learner: Any = self.trainer.model
        known = {n: p for n, p in ours.model.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for name, parameter in learner.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(known.pop(name))
        assert not known, f"TRL trains other parameters: {list(known)[:3]}"
        self.begin()


class InlineLora(InlineTask):
    """The reference is computed in the step, adapters off."""

    def inputs(self, items: Any) -> tuple[Any, ...]:
        given = ScoringTask.inputs(self, items)
        with torch.no_grad(), self.policy.reference():
            self.refs = self.policy.scorer(*given).sum(1).view(len(items), -1)
        return given


class OurLora:
    """`step()` runs one step and returns its seconds; losses and gradient norms are kept."""

    def __init__(self, data: list[dict[str, str]], folder: Path, steps: int, batch: int, inline: bool = False):
        self.policy, self.batch = policy(), batch
        self.rows: list[dict[str, float]] = []
        self.task = (InlineLora if inline else ScoringTask)(self.policy, Dpo(beta=BETA))
        settings = LoopSettings(
            steps=steps, lr=LR, batch_size=batch, micro_batch_size=batch, seed=0, schedule="constant", warmup_share=0.0
        )
        self.items = [
            Example(
                Prompt(r["prompt"]),
                (self.policy.completion_ids(r["chosen"]), self.policy.completion_ids(r["rejected"])),
                (None, None),
            )
            for r in data
        ]
        self.trainer: Any = Trainer(
            self.task, self.items, settings, LoopFiles(folder / "ours", folder / "ours.jsonl"), "ours"
        )
        self.reference_seconds = 0.0
        if not inline:
            start = time.perf_counter()
            with torch.no_grad(), self.policy.reference():
                sums = [self.task.module(*self.task.inputs(b)).sum(1).view(len(b), -1) for b in self._batches()]
            rows = [row for part in sums for row in part.tolist()]
            self.items = [replace(e, ref_logps=tuple(r)) for e, r in zip(self.items, rows, strict=True)]
            self.reference_seconds = time.perf_counter() - start

    def _batches(self) -> list[list[Example]]:
        return [self.items[i : i + self.batch] for i in range(0, len(self.items), self.batch)]

    @property
    def losses(self) -> list[float]:
        return [r["loss"] for r in self.rows]

    @property
    def norms(self) -> list[float]:
        return [r["grad_norm"] for r in self.rows]

    def step(self) -> float:
        batch = self._batches()[len(self.rows)]
        start = time.perf_counter()
        self.rows.append(self.trainer._update(len(self.rows), batch))
        return time.perf_counter() - start

    def close(self) -> None:
        """Nothing to stop; here so that both sides are used alike."""
