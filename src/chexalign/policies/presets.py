"""Published prompt wordings and image rules of known models. The data is in prompts.toml beside this file."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Preset:
    """One model's wordings. None where no wording was found published."""

    name: str
    match: tuple[str, ...]  # regular expressions that find it in a model id, path or architecture
    max_images: int
    notes: str
    source: str
    findings: str | None = None  # for a study without an indication
    findings_with_indication: str | None = None  # holds {indication}
    impression: str | None = None  # may hold {findings}
    system: str | None = None  # where it is not the chat template's own


@cache
def presets() -> tuple[Preset, ...]:
    """All of them, in the order in which they are tried."""
    with Path(__file__).with_name("prompts.toml").open("rb") as file:
        entries = tomllib.load(file)
    return tuple(Preset(name=name, **{**entry, "match": tuple(entry["match"])}) for name, entry in entries.items())


def preset_for(model: str) -> Preset | None:
    """The preset of a model id, a checkpoint path or an architecture name; None for a model that is not known."""
    return next((p for p in presets() if any(re.search(m, model, re.IGNORECASE) for m in p.match)), None)
