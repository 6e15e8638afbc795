"""TRL's DPOTrainer, whole and unchanged, run one optimizer step at a time: its loop waits for us after every step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from trl import DPOConfig, DPOTrainer

from engine_parts.setting import BATCH, BETA, LR, Case, model, processor
from engine_parts.turns import Recorded


class _Recording(DPOTrainer):
    seen: list[float]

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        loss = super().training_step(*arguments, **named)
        self.seen.append(float(loss))
        return loss


class TrlSteps(Recorded):
    """DPO over images, the reference a copy of the policy."""

    def __init__(self, case: Case, data: list[dict[str, Any]], folder: Path, steps: int):
        super().__init__()
        policy = model(case)
        policy.model.vision_tower.requires_grad_(False)
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
        self.begin()
