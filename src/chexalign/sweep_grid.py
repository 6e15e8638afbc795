"""The grid of a sweep: rows of a recipe multiplied out into labelled entries, and the paper's own grid by name."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

from chexalign.errors import RecipeError
from chexalign.recipe import Recipe, Train
from chexalign.recipe_file import build_recipe, nearest

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


@dataclass(frozen=True)
class Entry:
    """One cell of the grid: `label` names its folder, `given` is what its row says, `train` the whole section."""

    label: str
    given: dict[str, Any]
    train: Train


def grid_entries(recipe: Recipe) -> list[Entry]:
    """Every entry of `sweep.grid`, in order. Raises RecipeError for a wrong row, an empty grid, or a setting given twice."""
    rows: list[dict[str, Any]] = []
    for row in recipe.sweep.grid:
        if isinstance(row, str) and row not in GRIDS:
            raise RecipeError(f"sweep.grid: no built-in grid {row!r}; {nearest(row, list(GRIDS))}")
        rows += GRIDS[row] if isinstance(row, str) else [row]
    entries = [_entry(recipe, given) for row in rows for given in _multiply(row)]
    if not entries:
        raise RecipeError("sweep.grid is empty; give rows like {algorithm: dpo, beta: [0.05, 0.1]} or the name table7")
    for i, entry in enumerate(entries):
        for other in entries[:i]:
            if other.label == entry.label or other.train == entry.train:
                raise RecipeError(
                    f"sweep.grid: {other.label} and {entry.label} are the same settings; drop one of them"
                )
    return entries


def _multiply(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A row with lists → one mapping per combination, the last key running fastest."""
    choices = [value if isinstance(value, list) else [value] for value in row.values()]
    return [dict(zip(row, combination, strict=True)) for combination in itertools.product(*choices)]


def _entry(recipe: Recipe, given: dict[str, Any]) -> Entry:
    if not isinstance(given.get("algorithm"), str):
        raise RecipeError(f"sweep.grid: {given} names no algorithm; write {{algorithm: dpo, beta: 0.1}}")
    own = {k: v for k, v in given.items() if k in Train.model_fields and k != "algorithm"}
    algorithm = {"type": given["algorithm"], **{k: v for k, v in given.items() if k not in Train.model_fields}}
    raw = recipe.model_dump(mode="json")
    raw["train"] |= {**own, "algorithm": algorithm}
    label = _label(given)
    return Entry(label, given, build_recipe(raw, f"sweep.grid, {label}").train)


def _label(given: dict[str, Any]) -> str:
    """`dpo-beta0.1-lr0.0002`: the algorithm and every setting of the row, fit for a folder's name."""
    parts = [f"{k}{v:g}" if isinstance(v, float) else f"{k}{v}" for k, v in given.items() if k != "algorithm"]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join([given["algorithm"], *parts]))
