"""Source `jsonl`: a user's own studies, one JSON object a line."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chexalign.data.drops import Drops
from chexalign.data.paths import image_folder, inside_root
from chexalign.data.sources.common import json_lines, need_root
from chexalign.data.splits import by_patient, is_known, known_split
from chexalign.errors import RecipeError
from chexalign.recipe.studies import Studies
from chexalign.records import Study

KNOWN = frozenset(Study.__dataclass_fields__) | {"report"}
NEEDED_IMAGES = 'images must be a list of paths, or of {"path": …, "view": …}'
UNSPLIT = "no split, where other rows have one; give every row a split, or none (studies.split_by=patient)"


def jsonl(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """`root` is the .jsonl file (.gz too) or the folder with studies.jsonl; image paths are relative to studies.image_root.

    A row needs `study_id` and a report (`findings`, or `report`); `patient_id` (else the study is its own patient),
    `split` (else by patient, where no row has one), `images` (paths, or {"path", "view"}), `indication`, `comparison`,
    `impression`, `labels` are optional. Other fields are counted and not used; NaN is a missing value.
    """
    path = _file(need_root(settings, "studies.jsonl (or name the .jsonl file itself)"))
    root, split_of = image_folder(settings, folder), by_patient(settings, seed)
    brings_split = settings.split_by == "source" and any(
        is_known(row.get("split"), settings.split_names) for _, row in json_lines(path, Drops(), settings.encoding)
    )
    for number, row in json_lines(path, drops, settings.encoding):
        row = {k: v for k, v in row.items() if _present(v)}
        try:
            study = _own_study(row, settings, split_of, root, brings_split)
        except (KeyError, TypeError, ValueError) as error:
            reason = "no split" if str(error) == UNSPLIT else "bad row"
            drops.add(reason, f"{path}:{number}: {error}; fix the row or remove it")
            continue
        drops.places.setdefault(study.study_id, f"{path.name}:{number}")
        for name in sorted(set(row) - KNOWN):
            drops.note(_unused(name, row))
        yield study


def _file(root: Path) -> Path:
    path = root
    if root.is_dir():
        path = next(
            (p for p in (root / "studies.jsonl", root / "studies.jsonl.gz") if p.is_file()), root / "studies.jsonl"
        )
    if not path.is_file():
        raise RecipeError(f"{path} does not exist; studies.root is a .jsonl file or a folder with studies.jsonl")
    return path


def _present(value: Any) -> bool:
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))


def _unused(name: str, row: dict[str, Any]) -> str:
    close = [c for c in difflib.get_close_matches(name, sorted(KNOWN), n=1, cutoff=0.75) if c not in row]
    return f"field {name} is not used" + (f"; did you mean {close[0]}?" if close else "")


def _own_study(
    row: dict[str, Any], settings: Studies, split_of: Callable[[str], str], root: Path, brings_split: bool
) -> Study:
    """One row as a study. Raises ValueError saying what is wrong with it."""
    study_id = _identifier(row, "study_id")
    if study_id is None:
        raise ValueError("field study_id is missing")
    patient = _identifier(row, "patient_id") or study_id
    labels = row.get("labels") or {}
    if not isinstance(labels, dict):
        raise ValueError("labels must be an object")
    text = {k: row.get(k) or "" for k in ("indication", "comparison", "findings", "impression")}
    study = Study(
        study_id=study_id,
        patient_id=patient,
        split=_split(row, settings, brings_split) or split_of(patient),
        images=_own_images(row.get("images") or [], root),
        labels=labels,
        source=row.get("source") or "jsonl",
        **{**text, "findings": text["findings"] or row.get("report") or ""},
    )
    study.to_json().encode()  # NaN and broken Unicode are found here, with the row's number
    return study


def _split(row: dict[str, Any], settings: Studies, brings_split: bool) -> str | None:
    if settings.split_by == "patient" or ("split" not in row and not brings_split):
        return None
    if "split" not in row:
        raise ValueError(UNSPLIT)
    if not isinstance(row["split"], str):
        raise ValueError(f"split {row['split']!r} is not one of train, val, test")
    return known_split(row["split"], settings.split_names)


def _identifier(row: dict[str, Any], name: str) -> str | None:
    """An id as text; a number, 0 too, is an id. None where there is none."""
    value = row.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{name} must be text or a whole number")
    return str(value)


def _own_images(images: Any, root: Path) -> tuple[tuple[str, str], ...]:
    """(path, view) with paths relative to the image root; an image whose view the row does not say is `unknown`."""
    if not isinstance(images, list):
        raise ValueError(NEEDED_IMAGES)
    found = []
    for image in images:
        entry = {"path": image} if isinstance(image, str) else image
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise ValueError(NEEDED_IMAGES)
        view = entry.get("view")
        if _present(view) and not isinstance(view, str):
            raise ValueError("the view of an image must be text")
        found.append((inside_root(entry["path"], root), str(view) if _present(view) else "unknown"))
    return tuple(found)
