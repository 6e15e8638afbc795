"""The one training loop, on Accelerate. It knows modules, batches and losses, and no algorithm by name.

Exact resume: the order of examples depends on (seed, epoch) alone, a checkpoint holds what learns, optimizer, schedule and
step, and the log is cut back to the checkpoint. An interrupted run therefore ends in the same weights.

Many processes: a step's batch is cut into micro-batches, and each of these is split over the processes. All see the same
cuts, so that nothing but rounding depends on how many processes there are.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
from accelerate.utils import set_seed
from torch import Tensor, nn
from transformers import get_scheduler

from chexalign import processes
from chexalign.errors import RecipeError, WorkError
from chexalign.policies.adapters import lora_dropout_on
from chexalign.progress import progress
from chexalign.train.batches import batches, epoch_order, micro_batches, shard, steps_for
from chexalign.train.checkpoint import Checkpoint, cut_log, load_weights, trainable_parameters, write_weights
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.optimiser import MovingAverage, make_optimiser

__all__ = ["LoopFiles", "LoopSettings", "Task", "Trainer", "batches", "epoch_order", "steps_for"]

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)


class Task(Protocol[Item_contra]):
    """What is learnt: `module(*inputs(items))` gives an output, `loss(output, items, weights)` per-example values (B,).

    An item of weight 0 only fills a process's batch up: it must not move any other's value. A task with a `gather` attribute
    is given the function that concatenates tensors of all processes. One with `prepare(step, items)` makes what is learnt
    from a step's items, none if there is nothing to learn, and numbers for the log; its `state_dict` is checkpointed.
    """

    module: nn.Module

    def inputs(self, items: Sequence[Item_contra]) -> tuple[Any, ...]:
        """What the module is called with for these items, tensors on its device or ready to be moved."""

    def loss(
        self, output: Any, items: Sequence[Item_contra], weights: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(B,) losses and metrics of (B,) each. `weights` (B,): an item of weight 0 only fills the batch."""

    def size(self, item: Item_contra) -> int:
        """Tokens in a forward pass. Items of like size share a micro-batch, so that little is padded."""

    def check_first(self, output: Any, items: Sequence[Item_contra]) -> None:
        """Called with the forward passes of step 0, before any update; raises WorkError if they are not as they must be."""


class Trainer(Generic[Item]):
    """One training run: `Trainer(...).run()`. `label` names it beside its progress bar."""

    def __init__(
        self,
        task: Task[Item],
        items: Sequence[Item],
        settings: LoopSettings,
        files: LoopFiles,
        label: str,
        validate: Callable[[], dict[str, float]] | None = None,
    ):
        self.task = task
        self.items = items
        self.settings = settings
        self.folder = files.folder
        self.log = files.log
        self.label = label
        self.validate = validate if settings.eval_every else None
        set_seed(settings.seed)
        task.module.eval()  # no dropout but LoRA's, and that only inside a step
        self.accelerator = _accelerator(task.module)
        self.sharded = self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        if self.sharded:
            self._prepare_shards()
        learn = list(trainable_parameters(task.module).values())
        if not learn:
            raise RecipeError("train.freeze names all that this model has: nothing would learn")
        optimizer = make_optimiser(settings.optimiser, learn, settings.lr, settings.weight_decay)
        self.schedule = get_scheduler(
            settings.schedule,
            optimizer,
            num_warmup_steps=round(settings.warmup_share * settings.steps),
            num_training_steps=settings.steps,
        )
        self.module, self.optimizer = self.accelerator.prepare(task.module, optimizer)
        self.accelerator.register_for_checkpointing(self.schedule)
        if hasattr(task, "gather"):
            task.gather = self.accelerator.gather
        self.ema = MovingAverage(learn, settings.ema) if settings.ema else None
        parts = {"optimizer": self.optimizer, "schedule": self.schedule, **({"ema": self.ema} if self.ema else {})}
        if hasattr(task, "state_dict"):
            parts["task"] = task
        self.checkpoint = Checkpoint(files.folder, self.accelerator, task.module, parts, self.sharded)
        self.state: dict[str, Any] = {"step": 0, "best": None, "best_step": 0, "waited": 0, "stopped": False}

    def _prepare_shards(self) -> None:
        """What FSDP and DeepSpeed want to know before they take the weights apart, and what they cannot do here."""
        s, plugin = self.settings, self.accelerator.state.deepspeed_plugin
        if self.validate or s.ema or s.optimiser != "adamw":
            raise RecipeError(
                "FSDP and DeepSpeed serve the train stage with optimiser adamw and no ema; warm up with one process or DDP"
            )
        if plugin is not None:  # batches and clipping are the loop's, said once
            plugin.deepspeed_config |= {
                "train_micro_batch_size_per_gpu": math.ceil(s.micro_batch_size / self.accelerator.num_processes),
                "gradient_clipping": s.max_grad_norm,
            }
        with torch.no_grad(), progress("image features", len(self.items), "examples") as ticker:
            for item in self.items:  # a frozen tower is asked outside the module's forward, so now
                self.task.inputs([item])
                ticker.advance()

    def run(self) -> dict[str, Any]:
        """Train to the end (or to the early stop), leave the best weights in the module, return the final state."""
        self._resume()
        s, start, before = self.settings, time.monotonic(), {}
        if self.validate and s.eval_first and not self.state["step"]:
            before = {f"before_{name}": value for name, value in self._validate(0).items()}
        with progress(self.label, s.steps, "steps", self.state["step"]) as ticker:
            for step, (epoch, indices) in enumerate(self._batches()):
                if step < self.state["step"] or self.state["stopped"]:
                    continue
                row = {
                    "step": s.first_step + step,
                    "epoch": epoch,
                    **self._update(step, [self.items[i] for i in indices]),
                    **before,
                }
                self.state["step"] = step + 1
                if self.validate and ((step + 1) % s.eval_every == 0 or step + 1 == s.steps):
                    row |= self._validate(step + 1)
                before = {}
                self._append_log({**row, "seconds": round(time.monotonic() - start, 3)})
                ticker.advance(1, f"loss {row['loss']:.4f}")
                if s.saves_after(step + 1):
                    self.checkpoint.write(self.state)
        if self.state["best"] is not None and s.keep == "last":
            if self.ema:
                self.ema.exchange()  # the average is what was validated, and what is kept
            self.state["best_step"] = self.state["step"]
            write_weights(self.task.module, self.folder / "best.pt")
        elif self.state["best"] is not None:
            weights = torch.load(self.folder / "best.pt", weights_only=True, map_location="cpu")
            load_weights(self.task.module, weights)
        elif self.ema:
            self.ema.exchange()
        return self.state

    def _batches(self) -> Iterator[tuple[int, list[int]]]:
        s = self.settings
        drawn = batches(len(self.items), s.batch_size, s.seed, math.ceil(s.steps / s.repeat))
        return islice((batch for batch in drawn for _ in range(s.repeat)), s.steps)

    def full_weights(self) -> dict[str, Tensor] | None:
        """The model's weights gathered from all processes where each holds a piece; None where the model has them."""
        if not self.sharded:
            return None
        return {n.removeprefix("model."): w for n, w in self.accelerator.get_state_dict(self.module).items()}

    def _update(self, step: int, items: Sequence[Item]) -> dict[str, float]:
        """One optimizer step over the whole batch; every example weighs the same, however it is cut into micro-batches."""
        s, here, total = self.settings, self.accelerator, self.accelerator.num_processes
        torch.manual_seed(int(np.random.SeedSequence((s.seed, step, here.process_index)).generate_state(1)[0]))
        made: dict[str, float] = {}
        if hasattr(self.task, "prepare"):
            items, made = self.task.prepare(step, items)
        if not items:
            lr = self._move()  # nothing has a gradient, so that only the schedule goes on
            return {"loss": 0.0, **made, "lr": lr, "grad_norm": 0.0}
        cut = micro_batches(items, self.task.size, s.micro_batch_size, s.micro_batch_tokens)
        sums: dict[str, Tensor] = {}
        for k, micro in enumerate(cut):
            mine, shares = shard(micro, here.process_index, total)
            here.sync_gradients = last = k == len(cut) - 1
            with ExitStack() as stack:
                stack.enter_context(lora_dropout_on(self.task.module))
                if not last:  # gradients meet once per step
                    stack.enter_context(here.no_sync(self.module))
                output = self.module(*self.task.inputs(mine))
                if step == 0:
                    self.task.check_first(output, mine)
                weights = torch.tensor(shares, device=here.device)
                values, metrics = self.task.loss(output, mine, weights)
                here.backward((values * weights).sum() * total / len(items))
            for name, value in {"loss": values, **metrics}.items():
                sums[name] = sums.get(name, 0.0) + (value.detach() * weights).sum().double()
        norm = here.clip_grad_norm_(self.module.parameters(), s.max_grad_norm)
        if not np.isfinite(norm := float(norm)):
            raise WorkError(f"{self.label}: the gradient of step {step} is not finite; lower the learning rate")
        lr = self._move()
        totals = here.reduce(torch.stack(list(sums.values()))).tolist()
        means = {k: t / len(items) for k, t in zip(sums, totals, strict=True)}
        return {**means, **made, "lr": lr, "grad_norm": norm}

    def _move(self) -> float:
        """One step of the optimizer, the schedule and the moving average; returns the rate it took."""
        lr = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update()
        return lr

    def _validate(self, step: int) -> dict[str, float]:
        """Every process validates the whole, so that all agree on when to stop."""
        assert self.validate is not None
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if self.ema:
                stack.enter_context(self.ema.in_place())
            metrics = self.validate()
            if self.state["best"] is None or metrics["val_loss"] < self.state["best"]:
                self.state |= {"best": metrics["val_loss"], "best_step": step, "waited": 0}
                write_weights(self.task.module, self.folder / "best.pt")
            else:
                self.state["waited"] += 1
                self.state["stopped"] = self.state["waited"] >= self.settings.patience
        return metrics

    def _resume(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state = self.checkpoint.read() or self.state
        if processes.is_main():
            cut_log(self.log, self.settings.first_step + self.state["step"])

    def _append_log(self, row: dict[str, Any]) -> None:
        if processes.is_main():
            with open(self.log, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(row, allow_nan=False) + "\n")


def _accelerator(module: nn.Module) -> Accelerator:
    """Its launcher says how many processes there are. A text-only study leaves the projector unused, so DDP must look."""
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    on_cpu = next(module.parameters()).device.type == "cpu"
    here = Accelerator(cpu=on_cpu, kwargs_handlers=[ddp], mixed_precision="no")
    plain = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    if here.distributed_type not in (*plain, DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise RecipeError(f"training with {here.distributed_type.value} is not supported: use DDP, FSDP or DeepSpeed")
    return here
