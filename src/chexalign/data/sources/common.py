"""What the sources share: their folder, their JSON, their texts and their splits."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chexalign.data.drops import Drops
from chexalign.data.encoding import open_text
from chexalign.errors import RecipeError, WorkError
from chexalign.jsonl import unreadable
from chexalign.recipe.studies import Studies

FINDINGS_14 = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip


def need_root(settings: Studies, holds: str) -> Path:
    """studies.root, a folder or file that exists. Raises RecipeError saying what it must hold."""
    if settings.root is None:
        raise RecipeError(f"studies.root is missing: the folder that holds {holds} (studies.root=DIR)")
    if not settings.root.exists():
        raise RecipeError(f"studies.root {settings.root} does not exist; point it at the folder that holds {holds}")
    return settings.root


def need_file(folder: Path, names: tuple[str, ...], holds: str, depth: int = 3) -> Path:
    """The first of `names` (or with .gz) in the folder. Raises RecipeError that names the folder below where it is."""
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    for level in range(1, depth + 1):
        for name in names:
            if below := sorted(folder.glob("*/" * level + name + "*")):
                raise RecipeError(
                    f"studies.root {folder} holds no {names[0]}; did you mean studies.root={below[0].parent}?"
                )
    raise RecipeError(f"studies.root {folder} holds no {' or '.join(names)}; point it at the folder with {holds}")


def read_json_file(path: Path) -> Any:
    """A JSON file, .gz too, where a bare NaN stands for a missing value (None). Raises WorkError."""
    with open_text(path, "utf-8") as handle:
        try:
            return json.load(handle, parse_constant=lambda _: None)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WorkError(f"{path.name}: not valid JSON ({error}); download it again") from error


def json_lines(path: Path, drops: Drops, encoding: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a JSON-lines file, .gz too; lines that are no object are dropped with their reason."""
    with open_text(path, encoding) as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, parse_constant=_constant)
            except (ValueError, RecursionError) as error:
                what = unreadable(error)
                drops.add("invalid JSON", f"{path}:{number}: invalid JSON ({what}); fix the line or remove it")
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                what = f"a JSON object is needed, not {type(row).__name__}"
                drops.add("invalid JSON", f"{path}:{number}: {what}; fix the line or remove it")


def _constant(name: str) -> float | None:
    """JSON knows no NaN: it stands for a missing value. Infinity is left for its row to be refused."""
    return None if name == "NaN" else float(name)


def spaced(text: object) -> str:
    """Text with single spaces; what stands for no text (null, NaN, "nan", "None.") is empty. Raises ValueError."""
    if text is None or (isinstance(text, float) and math.isnan(text)):
        return ""
    if not isinstance(text, str):
        raise ValueError(f"text is needed, not {type(text).__name__}")
    found = " ".join(text.split())
    return "" if found.lower() in ("nan", "null") else found


def whole_number(text: str) -> str:
    """An id that a spreadsheet turned into 51000001.0, as it was."""
    return text[:-2] if text.endswith(".0") and text[:-2].isdigit() else text


def chexpert_labels(row: dict[str, Any], names: tuple[str, ...] = FINDINGS_14) -> dict[str, int]:
    """Label → 1, 0 or −1 (uncertain), by column name; what is blank was not mentioned and is left out."""
    found = {}
    for name in names:
        value = row.get(name)
        if value not in (None, ""):
            found[name] = int(float(value))
    return found
