"""What a run was made with: packages and the commit of the source checkout."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from chexalign import __version__

PACKAGES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "numpy", "pydantic")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "chexalign": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def git_commit() -> str | None:
    """The source checkout's commit (with + when the tree is changed); None when installed from a wheel."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
