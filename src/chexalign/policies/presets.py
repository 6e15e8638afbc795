"""Published prompt wordings and image rules of known models. The data is in prompts.toml beside this file."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from chexalign.cleaning import MARKUP
from chexalign.errors import RecipeError
from chexalign.recipe.policy import PolicySection
from chexalign.recipe.recipe import Recipe

# Our choices, for models without a published wording.
DEFAULT = "Write the findings of this chest X-ray."
SUMMARISE = "Findings: {findings}\nWrite the impression of this chest X-ray."
SUMMARISE_FOR = "Indication: {indication}\n" + SUMMARISE


@dataclass(frozen=True)
class Preset:
    """One model's wordings and image rules. None where nothing was found published."""

    name: str
    match: tuple[str, ...] = ()  # regular expressions that find it in a model id, folder name or architecture
    notes: str = ""
    source: str = ""
    findings: str | None = None  # for a study without an indication
    findings_with_indication: str | None = None  # holds {indication}
    impression: str | None = None  # may hold {findings}
    system: str | None = None  # where it is not the chat template's own
    chat: bool = True  # False: the words follow the image placeholder directly, whatever template the checkpoint brings
    images_last: bool = False  # the images stand after the words
    max_images: int | None = None
    max_pixels: int | None = None  # of an image, for processors that keep images of any size
    clean: tuple[str, ...] = MARKUP  # the rules of chexalign.cleaning that its texts need

    def most_images(self, allowed: int) -> int:
        """The most images of a study that the model is shown, where the recipe allows so many."""
        return allowed if self.max_images is None else min(allowed, self.max_images)


@cache
def presets() -> tuple[Preset, ...]:
    """All of them, in the order in which they are tried."""
    with Path(__file__).with_name("prompts.toml").open("rb") as file:
        entries = tomllib.load(file)
    return tuple(Preset(name=name, **_with_tuples(entry)) for name, entry in entries.items())


def _with_tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def preset_for(model: str) -> Preset | None:
    """The preset of a model id, a checkpoint folder or an architecture name; None for a model that is not known."""
    names = _names(Path(model)) if Path(model).is_dir() else [model]
    return next((p for p in presets() if any(re.search(m, n, re.IGNORECASE) for m in p.match for n in names)), None)


def _names(folder: Path) -> list[str]:
    """What a folder is called, the hub id where it lies in the hub's cache, its architectures, its adapter's base."""
    folder = folder.absolute()
    names = [folder.name, *(part for part in folder.parts if part.startswith("models--"))]
    for file, field in (("config.json", "architectures"), ("adapter_config.json", "base_model_name_or_path")):
        if (folder / file).is_file():
            try:
                value = json.loads((folder / file).read_text(encoding="utf-8")).get(field) or []
            except ValueError as error:
                raise RecipeError(f"policy.model: {folder / file} is not JSON ({error})") from error
            names += [value] if isinstance(value, str) else value
    return names


def wording(model: str, prompt: str = "auto", system: str | None = None, task: str = "findings") -> Preset:
    """What a model is asked: the recipe's own prompt, or with `auto` the model's published wording, or else the default.

    The words of the task are in `findings` and `findings_with_indication`, also where the task is the impression.

    Of a model whose recipe brings its own prompt, only the facts of its format stay (no chat, pixels).
    Raises RecipeError for `auto` where a model's only published task is not the findings.
    """
    known = preset_for(model) or Preset("default")
    if prompt != "auto":
        return Preset(
            "recipe", findings=prompt, system=system, chat=known.chat, max_pixels=known.max_pixels, clean=known.clean
        )
    if task == "impression":
        published = known.impression is not None
        return dataclasses.replace(
            known,
            findings=known.impression or SUMMARISE,
            findings_with_indication=None if published else SUMMARISE_FOR,
            system=system or known.system,
            source=known.source if published else "",
        )
    if known.findings is None and known.impression is not None:
        raise RecipeError(f"policy.prompt: no findings wording is published for {known.name}; give one")
    return dataclasses.replace(known, findings=known.findings or DEFAULT, system=system or known.system)


def wording_of(recipe: Recipe) -> Preset:
    """What the recipe's model is asked. Raises RecipeError where it is to write an impression from nothing."""
    settings = recipe.policy
    asked = wording(settings.model, settings.prompt, settings.system, recipe.task)
    if recipe.task == "impression" and "{findings}" not in (asked.findings or "") and not recipe.studies.max_images:
        raise RecipeError(
            "task impression: the prompt shows neither the findings nor an image; put {findings} into policy.prompt, or set "
            "studies.max_images"
        )
    return asked


def most_images(recipe: Recipe) -> int:
    """The most images of a study that the recipe's model is shown: `studies.max_images`, or the model's own lower limit."""
    return wording_of(recipe).most_images(recipe.studies.max_images)


def cleaning_of(settings: PolicySection) -> tuple[str, ...]:
    """The rules of chexalign.cleaning for a recipe's model: its preset's, or none with `clean: off`."""
    return () if settings.clean == "off" else (preset_for(settings.model) or Preset("default")).clean
