"""A trainer of TRL run one optimizer step at a time: its loop, in a thread of its own, waits for us after every step."""

from __future__ import annotations

import threading
import time
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback


class Turns(TrainerCallback):
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


class InTurns:
    """`step()` runs one step and returns its seconds. A subclass makes `trainer` with `turns` among its callbacks."""

    trainer: Any

    def __init__(self) -> None:
        self.turns = Turns()
        self.thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start the trainer's thread: it gets ready and waits for the first step."""
        self.thread = threading.Thread(target=self.trainer.train, daemon=True)
        self.thread.start()

    def step(self) -> float:
        if self.thread is None:
            self.begin()
        assert self.thread is not None
        start = time.perf_counter()
        self.turns.go.set()
        while not self.turns.done.wait(1):
            if not self.thread.is_alive():
                raise RuntimeError("TRL's trainer stopped early")
        self.turns.done.clear()
        return time.perf_counter() - start

    def close(self) -> None:
        self.turns.over = True
        self.turns.go.set()
        if self.thread is not None:
            self.thread.join()


class Recorded(InTurns):
    """For trainers that keep their losses in `seen`: data in order, losses and gradient norms kept."""

    def begin(self) -> None:
        self.norms: list[float] = []
        self.trainer.seen = []
        in_order = SequentialSampler(self.trainer.train_dataset)
        vars(self.trainer)["_get_train_sampler"] = lambda *_: in_order
        clip = self.trainer.accelerator.clip_grad_norm_
        vars(self.trainer.accelerator)["clip_grad_norm_"] = lambda *a, **k: self._note(clip(*a, **k))
        super().begin()

    def _note(self, norm: torch.Tensor) -> torch.Tensor:
        self.norms.append(float(norm))
        return norm

    @property
    def losses(self) -> list[float]:
        return self.trainer.seen
