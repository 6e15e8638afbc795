"""The one training loop, on Accelerate. It knows modules, batches and losses, and no algorithm by name.

Exact resume: the order of examples depends on (seed, epoch) alone, a checkpoint holds weights, optimizer, schedule and
step, and the log is cut back to the checkpoint. An interrupted run therefore ends in the same weights.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from transformers import get_scheduler

from chexalign.errors import WorkError
from chexalign.jsonl import atomic_write, read_json, read_lines, write_json
from chexalign.progress import progress
from chexalign.train.output import saving

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)


class Task(Protocol[Item_contra]):
    """What is learnt: `module(*inputs(items))` gives an output, `loss(output, items)` gives per-example values (B,)."""

    module: nn.Module

    def inputs(self, items: Sequence[Item_contra]) -> tuple[Any, ...]: ...

    def loss(self, output: Any, items: Sequence[Item_contra]) -> tuple[Tensor, dict[str, Tensor]]: ...

    def size(self, item: Item_contra) -> int:
        """Items of like size share a micro-batch, so that little is padded."""

    def check_first(self, output: Any, items: Sequence[Item_contra]) -> None:
        """Called with the very first forward pass, before any update; raises WorkError if it is not as it must be."""


@dataclass(frozen=True)
class Settings:
    steps: int  # optimizer steps in all
    lr: float
    batch_size: int  # examples per optimizer step, over all processes
    micro_batch_size: int
    seed: int
    schedule: str = "cosine"
    warmup_share: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    save_every: int = 200
    eval_every: int = 0  # 0: no validation, the last weights are kept
    patience: int = 0


def epoch_order(n: int, seed: int, epoch: int) -> list[int]:
    """The order of examples in one epoch: a permutation fixed by (seed, epoch)."""
    return np.random.default_rng((seed, epoch)).permutation(n).tolist()


def batches(n: int, batch_size: int, seed: int, steps: int) -> Iterator[tuple[int, list[int]]]:
    """(epoch, indices) for every optimizer step. The last batch of an epoch may be smaller; none is skipped."""
    done, epoch = 0, 0
    while done < steps:
        order = epoch_order(n, seed, epoch)
        for start in range(0, n, batch_size):
            if done == steps:
                return
            yield epoch, order[start : start + batch_size]
            done += 1
        epoch += 1


def steps_for(n: int, batch_size: int, epochs: int) -> int:
    return epochs * -(-n // batch_size)


class Trainer(Generic[Item]):
    """One training run: `Trainer(...).run()`. Checkpoints, log and best weights live in `folder`."""

    def __init__(
        self,
        task: Task[Item],
        items: Sequence[Item],
        settings: Settings,
        folder: Path,
        log: Path,
        label: str,
        validate: Callable[[], dict[str, float]] | None = None,
    ):
        self.task, self.items, self.settings, self.folder, self.log, self.label = (
            task,
            items,
            settings,
            folder,
            log,
            label,
        )
        self.validate = validate if settings.eval_every else None
        self.accelerator = Accelerator()
        set_seed(settings.seed)
        learning = [p for p in task.module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=settings.lr, weight_decay=settings.weight_decay)
        self.schedule = get_scheduler(
            settings.schedule,
            self.optimizer,
            num_warmup_steps=round(settings.warmup_share * settings.steps),
            num_training_steps=settings.steps,
        )
        self.module, self.optimizer = self.accelerator.prepare(task.module, self.optimizer)
        self.state: dict[str, Any] = {"step": 0, "best": None, "best_step": 0, "waited": 0, "stopped": False}

    def run(self) -> dict[str, Any]:
        """Train to the end (or to the early stop), leave the best weights in the module, return the final state."""
        self._resume()
        s, start = self.settings, time.monotonic()
        with progress(self.label, s.steps, "steps", self.state["step"]) as ticker:
            for step, (epoch, indices) in enumerate(batches(len(self.items), s.batch_size, s.seed, s.steps)):
                if step < self.state["step"] or self.state["stopped"]:
                    continue
                row = {"step": step, "epoch": epoch, **self._update(step, [self.items[i] for i in indices])}
                self.state["step"] = step + 1
                if self.validate and ((step + 1) % s.eval_every == 0 or step + 1 == s.steps):
                    row |= self._validate(step + 1)
                self._append_log({**row, "seconds": round(time.monotonic() - start, 3)})
                ticker.advance(1, f"loss {row['loss']:.4f}")
                if (step + 1) % s.save_every == 0 and step + 1 < s.steps:
                    self._save()
        if self.state["best"] is not None:
            self._load_best()
        return self.state

    def _update(self, step: int, items: Sequence[Item]) -> dict[str, float]:
        """One optimizer step over the whole batch; every example weighs the same, however it is cut into micro-batches."""
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = sorted(list(items)[rank::processes], key=self.task.size)
        size, sums = self.settings.micro_batch_size, {"loss": 0.0}
        for first in range(0, len(mine), size):
            micro = mine[first : first + size]
            output = self.module(*self.task.inputs(micro))
            if step == 0:
                self.task.check_first(output, micro)
            values, metrics = self.task.loss(output, micro)
            self.accelerator.backward(values.sum() * processes / len(items))
            for name, value in {"loss": values, **metrics}.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach().sum())
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), self.settings.max_grad_norm)
        if not torch.isfinite(norm):
            raise WorkError(f"{self.label}: the gradient of step {step} is not finite; lower the learning rate")
        lr = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        totals = self.accelerator.reduce(torch.tensor(list(sums.values()), dtype=torch.float64)).tolist()
        means = {k: t / len(items) for k, t in zip(sums, totals, strict=True)}
        return {**means, "lr": lr, "grad_norm": float(norm)}

    # ---- validation

    def _validate(self, step: int) -> dict[str, float]:
        assert self.validate is not None
        self.task.module.eval()
        with torch.no_grad():
            metrics = self.validate()
        loss = metrics["val_loss"]
        if self.state["best"] is None or loss < self.state["best"]:
            self.state |= {"best": loss, "best_step": step, "waited": 0}
            with saving(self.folder), atomic_write(self.folder / "best.pt", "wb") as handle:
                torch.save(self.accelerator.unwrap_model(self.module).state_dict(), handle)
        else:
            self.state["waited"] += 1
            self.state["stopped"] = self.state["waited"] >= self.settings.patience
        return metrics

    def _load_best(self) -> None:
        weights = torch.load(self.folder / "best.pt", weights_only=True, map_location=self.accelerator.device)
        self.accelerator.unwrap_model(self.module).load_state_dict(weights)

    # ---- checkpoints

    def _save(self) -> None:
        """Write a checkpoint beside the last one, then put it in its place: a crash leaves a whole one."""
        target, fresh = self.folder / "checkpoint", self.folder / "checkpoint.new"
        if self.accelerator.is_main_process:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            state = {
                "model": self.accelerator.unwrap_model(self.module).state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
            }
            with saving(self.folder):
                torch.save(state, fresh / "state.pt")
            write_json(fresh / "progress.json", self.state)
            shutil.rmtree(self.folder / "checkpoint.old", ignore_errors=True)
            if target.exists():
                target.rename(self.folder / "checkpoint.old")
            fresh.rename(target)
            shutil.rmtree(self.folder / "checkpoint.old", ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        found = next((self.folder / n for n in ("checkpoint", "checkpoint.old") if (self.folder / n).exists()), None)
        if found is not None:
            self.state = read_json(found / "progress.json")
            saved = torch.load(found / "state.pt", weights_only=True, map_location=self.accelerator.device)
            self.accelerator.unwrap_model(self.module).load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
        if self.accelerator.is_main_process:
            self._cut_log()

    def _cut_log(self) -> None:
        """Drop log rows beyond the checkpoint (and a torn last line): they will be written again."""
        rows = [r for _, r in read_lines(self.log) if isinstance(r, dict)] if self.log.exists() else []
        with atomic_write(self.log) as handle:
            for row in rows:
                if row["step"] < self.state["step"]:
                    handle.write(json.dumps(row) + "\n")

    def _append_log(self, row: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with open(self.log, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(row, allow_nan=False) + "\n")
