"""The versions of the libraries whose internals are touched that chexalign was tested with (docs/evidence/versions.md)."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

TOUCHED = ("transformers", "peft", "accelerate", "tokenizers")


def outside() -> str | None:
    """One line where an installed version lies outside the bounds of the package's own metadata; None inside them."""
    try:
        bounds = [Requirement(line) for line in requires("chexalign") or ()]
    except PackageNotFoundError:  # run from its source, not installed
        return None
    wrong = [
        f"{b.name} {version(b.name)} (tested: {b.specifier})"
        for b in bounds
        if b.name in TOUCHED and not b.specifier.contains(version(b.name), prereleases=True)
    ]
    return f"not tested with {', '.join(wrong)}: docs/evidence/versions.md" if wrong else None
