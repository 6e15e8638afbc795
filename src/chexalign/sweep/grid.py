"""The grid of a sweep: rows of a recipe multiplied out into labelled entries, and the paper's own grid by name.

An entry is trained once, or once per seed of `sweep.seeds`: each time is an arm.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from typing import Any, get_args

from chexalign.errors import RecipeError
from chexalign.recipe.files import build_recipe, nearest
from chexalign.recipe.online import OnlineAlgorithm
from chexalign.recipe.recipe import Recipe
from chexalign.recipe.train import Train

# Built-in grids: name → rows. Learning rate, epochs and batch size are those of the recipe's `train:` section.
GRIDS: dict[str, tuple[dict[str, Any], ...]] = {
    "table7": (  # CheXalign (Hein et al. 2025), Table 7
        {"algorithm": "dpo", "beta": [0.01, 0.05, 0.1]},
        {"algorithm": "lc_dpo", "beta": [0.01, 0.05, 0.1], "alpha": [0.001, 0.01]},
        {"algorithm": "ipo", "tau": [0.1, 0.5, 1.0]},
        {"algorithm": "kto", "beta": [0.01, 0.05, 0.1]},
        {"algorithm": "orpo", "lam": [0.5, 1.0, 4.0, 5.0]},
    ),
}
ONLINE = frozenset(str(kind.model_fields["type"].default) for kind in get_args(OnlineAlgorithm))
LONGEST = 80  # characters of a label: it names a folder


@dataclass(frozen=True)
class Arm:
    """One training of an entry: `label` names its folder."""

    label: str
    train: Train


@dataclass(frozen=True)
class Entry:
    """One cell of the grid: what its row says (`given`), what tables call it, the whole section, and its trainings."""

    label: str
    name: str | None
    given: dict[str, Any]
    train: Train
    arms: tuple[Arm, ...]


def grid_entries(recipe: Recipe) -> list[Entry]:
    """Every entry of `sweep.grid`, in order. Raises RecipeError for a wrong row, an empty grid, or a setting given twice."""
    if recipe.train.online and "grid" not in recipe.sweep.model_fields_set:
        raise RecipeError(
            "sweep.grid is missing; give rows like {algorithm: grpo, reward: finding_f1, lr: [1e-5, 1e-4]}"
        )
    rows: list[dict[str, Any]] = []
    for row in recipe.sweep.grid:
        if isinstance(row, str) and row not in GRIDS:
            raise RecipeError(f"sweep.grid: no built-in grid {row!r}; {nearest(row, list(GRIDS))}")
        rows += GRIDS[row] if isinstance(row, str) else [row]
    entries = [_entry(recipe, name, given) for row in rows for name, given in _multiply(row)]
    if not entries:
        raise RecipeError("sweep.grid is empty; give rows like {algorithm: dpo, beta: [0.05, 0.1]} or the name table7")
    for i, entry in enumerate(entries):
        for other in entries[:i]:
            if other.label == entry.label or other.train == entry.train:
                raise RecipeError(
                    f"sweep.grid: {other.label} and {entry.label} are the same settings; drop one of them"
                )
    return entries


def _multiply(row: dict[str, Any]) -> list[tuple[str | None, dict[str, Any]]]:
    """A row with lists → (name, settings) of every combination, the last key running fastest.

    The name of a row that multiplies out gets the settings that make the difference.
    """
    name, settings = row.get("name"), {k: v for k, v in row.items() if k != "name"}
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise RecipeError(f"sweep.grid: name {name!r} is not text; write {{name: GRPO, algorithm: grpo}}")
    choices = [value if isinstance(value, list) else [value] for value in settings.values()]
    several = [key for key, values in zip(settings, choices, strict=True) if len(values) > 1]
    found = []
    for combination in itertools.product(*choices):
        given = dict(zip(settings, combination, strict=True))
        found.append((name and ", ".join([name, *(f"{k} {in_words(given[k])}" for k in several)]), given))
    return found


def _entry(recipe: Recipe, name: str | None, given: dict[str, Any]) -> Entry:
    if not isinstance(given.get("algorithm"), str):
        raise RecipeError(f"sweep.grid: {given} names no algorithm; write {{algorithm: dpo, beta: 0.1}}")
    raw, label = recipe.model_dump(mode="json"), _label(name, given)
    own = {k: v for k, v in given.items() if k in Train.model_fields and k != "algorithm"}
    algorithm = {"type": given["algorithm"], **{k: v for k, v in given.items() if k not in Train.model_fields}}
    if given["algorithm"] not in ONLINE:
        raw["train"]["reward"] = None
    elif given["algorithm"] == recipe.train.algorithm.type:
        algorithm = _merged(raw["train"]["algorithm"], algorithm)
    raw["train"] = {**_merged(raw["train"], own), "algorithm": algorithm}

    def section(where: str, **more: Any) -> Train:
        return build_recipe({**raw, "train": {**raw["train"], **more}}, f"sweep.grid, {where}").train

    arms = tuple(Arm(f"{label}-seed{seed}", section(label, seed=seed)) for seed in recipe.sweep.seeds)
    train = section(label)
    if arms and train.seed is not None:
        raise RecipeError(f"sweep.grid, {label}: the seed of a row and sweep.seeds exclude each other")
    return Entry(label, name, given, train, arms or (Arm(label, train),))


def _merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """`more` over `base`, section by section."""
    both = {k: _merged(base[k], v) for k, v in more.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return {**base, **more, **both}


def in_words(value: Any) -> str:
    """A setting as text: `0.1`, `studies 400`."""
    if isinstance(value, dict):
        return " ".join(f"{k} {in_words(v)}" for k, v in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _label(name: str | None, given: dict[str, Any]) -> str:
    """The row's name, or algorithm and settings (`dpo-beta0.1-lr0.0002`), fit for a folder's name."""
    settings = [f"{k}{in_words(v)}" for k, v in given.items() if k != "algorithm"]
    text = re.sub(r"[^A-Za-z0-9._-]+", "_", name or "-".join([given["algorithm"], *settings]))
    text = text.strip("._") if name else text
    if len(text) <= LONGEST and text:
        return text
    return f"{text[: LONGEST - 9]}-{hashlib.sha256(repr((name, given)).encode()).hexdigest()[:8]}".lstrip("-")
