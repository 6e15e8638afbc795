"""Putting trained weights on the disk: written beside, renamed once whole, a full disk told from a bug."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from chexalign.policies.policy import Policy

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


def save_policy(policy: Policy, folder: Path, work: Path, dtype: str = "float32") -> None:
    """Save to `folder` in one step (a crash leaves the old folder or none), then drop the checkpoints in `work`."""
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    policy.model.to(getattr(torch, dtype))
    with saving(folder.parent):
        policy.save(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    shutil.rmtree(work, ignore_errors=True)
