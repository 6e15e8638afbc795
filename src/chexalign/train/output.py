"""Putting a trained policy in its place: written beside, renamed once whole, checkpoints removed."""

from __future__ import annotations

import shutil
from pathlib import Path

from chexalign.policies.policy import Policy


def save_policy(policy: Policy, folder: Path, work: Path) -> None:
    """Save to `folder` in one step (a crash leaves the old folder or none), then drop the checkpoints in `work`."""
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    policy.save(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    shutil.rmtree(work, ignore_errors=True)
