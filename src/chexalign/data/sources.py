"""The built-in sources as functions of one shape: (settings, seed, run folder, drops) → studies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chexalign.data import Drops, split_by_patient
from chexalign.errors import RecipeError, WorkError
from chexalign.jsonl import read_lines
from chexalign.recipe.recipe import Studies
from chexalign.records import Study


def phantom(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """Drawn studies; images are written to the run folder."""
    from chexalign.data.phantom import phantom as draw

    split_of = split_by_patient(seed, settings.val_share, settings.test_share)
    yield from draw(seed, settings.n or 1000, settings.image_size, folder, split_of)


def openi(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """Real reports without images, read from the torchxrayvision wheel (or from `root`, an archive of the same form)."""
    from chexalign.data.openi import read_openi

    yield from read_openi(settings.root, split_by_patient(seed, settings.val_share, settings.test_share))


def _need_root(settings: Studies, marker: str) -> Path:
    if settings.root is None:
        raise RecipeError(f"studies.root is missing: the folder that holds {marker} (studies.root=DIR)")
    if not settings.root.exists():
        raise RecipeError(f"studies.root {settings.root} does not exist; point it at the folder that holds {marker}")
    return settings.root


def _sort_views(images: list[tuple[str, str]], views: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Keep the wanted views in the wanted order; the order within one view is the source's."""
    return tuple(sorted((i for i in images if i[1] in views), key=lambda i: views.index(i[1])))


def iu_xray(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """`root`/studies.jsonl with `root`/images/. Each uid is taken as one patient: the set names no patients."""
    path = _need_root(settings, "studies.jsonl and images/") / "studies.jsonl"
    split_of = split_by_patient(seed, settings.val_share, settings.test_share)
    for number, row in _rows(path, drops):
        try:
            images = [(i["file"], i["view"]) for i in row["images"]]
            study = Study(
                study_id=row["uid"],
                patient_id=row["uid"],
                split=split_of(row["uid"]),
                images=_sort_views(images, settings.views),
                indication=row.get("indication") or "",
                comparison=row.get("comparison") or "",
                findings=row.get("findings") or "",
                impression=row.get("impression") or "",
                labels={"mesh": row.get("mesh") or []},
                source="iu_xray",
            )
        except (KeyError, TypeError, ValueError) as error:
            drops.add("bad row", f"{path}:{number}: {type(error).__name__} {error}; fix the row or remove it")
            continue
        yield study


def jsonl(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """A user's own studies. `root` is the .jsonl file or the folder with studies.jsonl; image paths are relative to it.

    A row needs `study_id` and a report (`findings`, or `report`); `patient_id` (else the study is its own patient),
    `split` (else by patient), `images` (paths, or {"path", "view"}), `indication`, `comparison`, `impression`,
    `labels` are optional.
    """
    root = _need_root(settings, "studies.jsonl (or name the .jsonl file itself)")
    path = root / "studies.jsonl" if root.is_dir() else root
    if not path.is_file():
        raise RecipeError(f"{path} does not exist; studies.root is a .jsonl file or a folder with studies.jsonl")
    split_of = split_by_patient(seed, settings.val_share, settings.test_share)
    for number, row in _rows(path, drops):
        try:
            study = _own_study(row, split_of, settings.views)
        except (KeyError, TypeError, ValueError) as error:
            drops.add("bad row", f"{path}:{number}: {error}; fix the row or remove it")
            continue
        yield study


def _own_study(row: dict[str, Any], split_of: Callable[[str], str], views: tuple[str, ...]) -> Study:
    """One row as a study. Raises ValueError saying what is wrong with it."""
    known = set(Study.__dataclass_fields__) | {"report"}
    if unknown := sorted(set(row) - known):
        raise ValueError(f"unknown field {', '.join(unknown)} (known: {', '.join(sorted(known))})")
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
        split=row.get("split") or split_of(patient),
        images=_sort_views(_own_images(row.get("images") or []), views),
        labels=labels,
        source=row.get("source") or "jsonl",
        **{**text, "findings": text["findings"] or row.get("report") or ""},
    )
    study.to_json().encode()  # NaN and broken Unicode are found here, with the row's number
    return study


def _identifier(row: dict[str, Any], name: str) -> str | None:
    """An id as text; a number, 0 too, is an id. None where there is none."""
    value = row.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{name} must be text or a whole number")
    return str(value)


def _own_images(images: Any) -> list[tuple[str, str]]:
    if not isinstance(images, list):
        raise ValueError('images must be a list of paths, or of {"path": …, "view": …}')
    found = []
    for image in images:
        entry = {"path": image} if isinstance(image, str) else image
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise ValueError('images must be a list of paths, or of {"path": …, "view": …}')
        found.append((entry["path"], entry.get("view") or "frontal"))
    return found


def _rows(path: Path, drops: Drops) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise WorkError(f"{path} is missing")
    for number, row in read_lines(path):
        if isinstance(row, str):
            drops.add("invalid JSON", f"{path}:{number}: {row}; fix the line or remove it")
        else:
            yield number, row
