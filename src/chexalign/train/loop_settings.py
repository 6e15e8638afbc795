"""What the training loop knows of a recipe, and where it writes."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class LoopSettings:
    """How long, how fast and how large: all that the loop knows of a recipe. Schedules count optimizer steps."""

    steps: int  # optimizer steps in all
    lr: float
    batch_size: int  # examples per optimizer step
    micro_batch_size: int  # examples per forward pass, over all processes
    seed: int
    schedule: str = "cosine"
    warmup_share: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    save_every: int = 200
    eval_every: int = 0  # 0: no validation, the last weights are kept
    patience: int = 0
    micro_batch_tokens: int | None = None
    optimiser: str = "adamw"
    ema: float = 0.0
    repeat: int = 1  # optimizer steps on each batch; checkpoints and validations fall between batches
    first_step: int = 0  # the log's number of the first step, where an earlier part of the run has written to it
    eval_first: bool = False  # validate before any update, so that what is kept is never worse than the start
    keep: str = "best"  # or "last": the weights after the last step, whatever a validation said

    @classmethod
    def of(cls, section: Any, **given: Any) -> LoopSettings:
        """The settings that a recipe's section names, with those given."""
        return cls(**{f.name: getattr(section, f.name) for f in fields(cls) if hasattr(section, f.name)} | given)

    def saves_after(self, done: int) -> bool:
        """Whether a checkpoint is written after `done` steps: about every `save_every`, between batches, not at the end.

        A checkpoint inside a batch could not say what was made from it.
        """
        batches_done, inside = divmod(done, self.repeat)
        return not inside and batches_done % math.ceil(self.save_every / self.repeat) == 0 and done < self.steps


@dataclass(frozen=True)
class LoopFiles:
    """Where a training run writes and what it resumes from; a run of other settings needs another folder."""

    folder: Path  # checkpoints and the best weights
    log: Path  # one JSON line a step
