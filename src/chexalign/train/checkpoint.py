"""Checkpoints of a training run: what learns, the optimizer, the schedule and how far it got, replaced in one step.

With one process or DDP the main process writes one file, and any number of processes can read it. FSDP and DeepSpeed hold
a piece of everything in each process and write through Accelerate; the same number of processes must read it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from chexalign.errors import WorkError
from chexalign.jsonl import atomic_write, read_json, read_lines, write_json
from chexalign.processes import barrier, is_main
from chexalign.train.output import saving


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name. The others come from the model's own folder and are not written again."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_weights(module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Into the parameters that learn, in place. Raises WorkError when one of them is not in `saved`."""
    for name, parameter in trainable_parameters(module).items():
        if name not in saved:
            raise WorkError(f"the checkpoint has no {name!r}: it belongs to other settings; delete its folder")
        parameter.copy_(saved[name])


def write_weights(module: nn.Module, path: Path) -> None:
    """The main process writes; call it in all."""
    if is_main():
        with saving(path.parent), atomic_write(path, "wb") as handle:
            torch.save({n: p.detach() for n, p in trainable_parameters(module).items()}, handle)
    barrier()


class Checkpoint:
    """`folder/checkpoint`: `write` and `read` are called by every process."""

    def __init__(self, folder: Path, accelerator: Accelerator, module: nn.Module, parts: dict[str, Any], sharded: bool):
        self.folder = folder
        self.accelerator = accelerator
        self.module = module
        self.parts = parts
        self.sharded = sharded

    def write(self, progress: dict[str, Any]) -> None:
        """Write beside the last one, then put it in its place: a crash leaves a whole one."""
        target, fresh, old = (self.folder / n for n in ("checkpoint", "checkpoint.new", "checkpoint.old"))
        if is_main():
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            write_json(fresh / "progress.json", progress)
        barrier()
        with saving(self.folder):
            if self.sharded:
                self.accelerator.save_state(str(fresh / "state"))
            elif is_main():
                weights = {n: p.detach() for n, p in trainable_parameters(self.module).items()}
                state = {name: part.state_dict() for name, part in self.parts.items()}
                torch.save({"model": weights, **state}, fresh / "state.pt")
        barrier()
        if is_main():
            shutil.rmtree(old, ignore_errors=True)
            if target.exists():
                target.rename(old)
            fresh.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        barrier()

    def read(self) -> dict[str, Any] | None:
        """Load the last checkpoint into module, optimizer and schedule; returns how far it got, None when there is none."""
        found = next((self.folder / n for n in ("checkpoint", "checkpoint.old") if (self.folder / n).exists()), None)
        if found is None:
            return None
        if self.sharded != (found / "state").exists():
            raise WorkError(f"{found} was written {'without' if self.sharded else 'with'} FSDP or DeepSpeed; delete it")
        if self.sharded:
            self.accelerator.load_state(str(found / "state"))
        else:
            saved = torch.load(found / "state.pt", weights_only=True, map_location="cpu")
            load_weights(self.module, saved["model"])
            for name, part in self.parts.items():
                part.load_state_dict(saved[name])
        return read_json(found / "progress.json")


def cut_log(log: Path, step: int) -> None:
    """Drop log rows from `step` on (and a torn last line): they will be written again."""
    rows = [r for _, r in read_lines(log) if isinstance(r, dict)] if log.exists() else []
    with atomic_write(log) as handle:
        for row in rows:
            if row["step"] < step:
                handle.write(json.dumps(row) + "\n")
