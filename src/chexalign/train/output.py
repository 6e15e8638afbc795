"""Putting trained weights on the disk: written beside, renamed once whole, a full disk told from a bug."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from chexalign.policies.adapters import has_adapter
from chexalign.policies.policy import Policy
from chexalign.processes import barrier, is_main

NEARLY_FULL = 64 << 20  # bytes free below which a failed write is taken for a full disk


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """torch and safetensors report a full disk as errors of their own; inside, it is the OSError that it is."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        if shutil.disk_usage(folder).free < NEARLY_FULL:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder)) from error
        raise


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through the block, then the others: they find on the disk what it has written."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def save_policy(
    policy: Policy, folder: Path, work: Path, dtype: str = "float32", weights: dict[str, Tensor] | None = None
) -> None:
    """Save to `folder` in one step (a crash leaves the old folder or none), then drop the checkpoints in `work`.

    `weights` are the model's where the processes hold only pieces of it. The main process writes, the others wait.
    """
    kind = torch.float32 if has_adapter(policy.model) else getattr(torch, dtype)  # adapters are small
    barrier()
    if weights is None:
        policy.model.to(kind)
    if is_main():
        fresh = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        with saving(folder.parent):
            policy.save(fresh, weights and {n: w.to(kind) for n, w in weights.items()})
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
        shutil.rmtree(work, ignore_errors=True)
    barrier()
