"""What a run was made with: packages and the commit of the source checkout."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from chexalign import __version__

PACKAGES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "numpy", "pydantic")


def versions() -> dict[str, str]:
    """Package → version, "absent" where it is not installed; read from metadata, nothing is imported."""
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


# ---- the tested range

TOUCHED = ("transformers", "peft", "accelerate", "tokenizers")


def outside() -> str | None:
    """One line where an installed version lies outside the bounds of the package's own metadata; None inside them."""
    try:
        bounds = [Requirement(line) for line in metadata.requires("chexalign") or ()]
    except metadata.PackageNotFoundError:  # run from its source, not installed
        return None
    wrong = [
        f"{b.name} {metadata.version(b.name)} (tested: {b.specifier})"
        for b in bounds
        if b.name in TOUCHED and not b.specifier.contains(metadata.version(b.name), prereleases=True)
    ]
    return f"not tested with {', '.join(wrong)}: docs/evidence/versions.md" if wrong else None
