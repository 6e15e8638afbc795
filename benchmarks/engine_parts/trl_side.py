"""TRL's DPOTrainer, whole and unchanged, run one optimizer step at a time: its loop waits for us after every step."""

from __future__ import annotations

import copy
import threading
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from engine_parts.setting import BATCH, BETA, LR, Case, model, processor


class _Turns(TrainerCallback):
    """Lets the trainer's thread run for one step when told to."""

    def __init__(self) -> None:
        self.go, self.done, self.over = threading.Event(), threading.Event(), False

    def _wait(self) -> None:
        self.go.wait()
        self.go.clear()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._wait()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.done.set()
        self._wait()
        control.should_training_stop = self.over


class _Recording(DPOTrainer):
    seen: list[float]

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        loss = super().training_step(*arguments, **named)
        self.seen.append(float(loss))
        return loss


class TrlSteps:
    """`step()` runs one step and returns its seconds; losses and gradient norms are kept."""

    def __init__(self, case: Case, data: list[dict[str, Any]], folder: Path, steps: int):
        policy = model(case)
        policy.model.vision_tower.requires_grad_(False)
        self.turns = _Turns()
        self.norms: list[float] = []
        arguments = DPOConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=BATCH,
            max_steps=steps,
            learning_rate=LR,
            lr_scheduler_type="constant",
            beta=BETA,
            report_to=[],
            logging_steps=10**6,
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            max_length=None,
            gradient_checkpointing=False,
            disable_tqdm=True,
        )
        table = [
            {
                "images": [Image.open(folder / n).convert("RGB") for n in r["names"]],
                **{k: r[k] for k in ("prompt", "chosen", "rejected")},
            }
            for r in data
        ]
        self.trainer: Any = _Recording(
            model=policy,
            ref_model=copy.deepcopy(policy),
            args=arguments,
            train_dataset=Dataset.from_list(table),
            processing_class=processor(case),
            callbacks=[self.turns],
        )
        self.trainer.seen = []
        in_order = SequentialSampler(table)
        vars(self.trainer)["_get_train_sampler"] = lambda *_: in_order
        clip = self.trainer.accelerator.clip_grad_norm_
        vars(self.trainer.accelerator)["clip_grad_norm_"] = lambda *a, **k: self._note(clip(*a, **k))
        self.thread = threading.Thread(target=self.trainer.train, daemon=True)
        self.thread.start()

    def _note(self, norm: torch.Tensor) -> torch.Tensor:
        self.norms.append(float(norm))
        return norm

    @property
    def losses(self) -> list[float]:
        return self.trainer.seen

    def step(self) -> float:
        start = time.perf_counter()
        self.turns.go.set()
        self.turns.done.wait()
        self.turns.done.clear()
        return time.perf_counter() - start

    def close(self) -> None:
        self.turns.over = True
        self.turns.go.set()
        self.thread.join()
