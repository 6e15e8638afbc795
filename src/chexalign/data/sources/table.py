"""Source `csv`: any table of reports, one row a study or one row an image, with the recipe's words for its columns."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from chexalign.data.drops import Drops
from chexalign.data.paths import image_folder, inside_root
from chexalign.data.sources.common import need_root
from chexalign.data.sources.jsonl import UNSPLIT
from chexalign.data.splits import by_patient, is_known, known_split
from chexalign.data.tables import Row, read_table
from chexalign.errors import RecipeError
from chexalign.recipe.studies import Columns, Studies
from chexalign.records import Study

SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")
TEXTS = ("indication", "comparison", "findings", "impression")


def csv(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """`root` is the table, or a folder with one table in it; `studies.columns` names its columns in the recipe's terms.

    Rows of one study are put together: their images are joined, their texts are the first row's. Ids are text, with
    their leading zeros. Image paths are relative to studies.image_root (else to the table's folder); a cell may hold
    several, between `studies.list_separator`. All of it is read before the first study is given.
    """
    path = _table(need_root(settings, "your table (or name the table itself)"))
    columns = {name: names for name, names in _columns(path, settings).items() if names}
    root, split_of = image_folder(settings, folder), by_patient(settings, seed)
    brings_split = (
        settings.split_by == "source"
        and "split" in columns
        and any(
            isinstance(row, dict) and is_known(_cell(row, columns["split"]), settings.split_names)
            for _, row in _rows(path, settings)
        )
    )
    studies: dict[str, Study] = {}
    for number, row in _rows(path, settings):
        try:
            if isinstance(row, str):
                raise ValueError(row)
            study = _study(row, columns, settings, None if brings_split else split_of, root)
        except ValueError as error:
            reason = "no split" if str(error) == UNSPLIT else "bad row"
            drops.add(reason, f"{path}:{number}: {error}; fix the row or remove it")
            continue
        drops.places.setdefault(study.study_id, f"{path.name}:{number}")
        first = studies.get(study.study_id)
        studies[study.study_id] = study if first is None else _joined(first, study, drops)
    yield from studies.values()


def _rows(path: Path, settings: Studies) -> Iterator[tuple[int, Row | str]]:
    return read_table(path, settings.encoding, settings.delimiter)


def _table(root: Path) -> Path:
    if root.is_dir():
        tables = sorted(p for p in root.iterdir() if p.is_file() and p.name.lower().endswith(SUFFIXES))
        if len(tables) != 1:
            found = ", ".join(p.name for p in tables) or "none"
            raise RecipeError(
                f"studies.root {root} holds {len(tables)} tables ({found}); name one with studies.root=FILE"
            )
        return tables[0]
    if root.suffix.lower() in (".xls", ".xlsx", ".ods", ".parquet"):
        raise RecipeError(f"{root.name} is no text table; save it as CSV (UTF-8) and name that with studies.root=FILE")
    return root


def _columns(path: Path, settings: Studies) -> dict[str, tuple[str, ...]]:
    """Our name → the table's columns. Raises RecipeError naming the nearest column where one is not there."""
    first = next((row for _, row in _rows(path, settings) if isinstance(row, dict)), None)
    if first is None:
        raise RecipeError(f"{path.name} has no usable row; its first line must name the columns, the others hold them")
    there, found = list(first), {}
    for name in Columns.model_fields:
        asked = getattr(settings.columns, name)
        names = (asked,) if isinstance(asked, str) else tuple(asked)
        lost = [n for n in names if n not in first]
        if lost and (name in settings.columns.model_fields_set or name == "study_id"):
            close = difflib.get_close_matches(lost[0], there, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"its columns are {', '.join(there)}"
            raise RecipeError(f"studies.columns.{name}: {path.name} has no column {lost[0]!r}; {hint}")
        found[name] = () if lost else names
    if not found["findings"] and "report" in first and "findings" not in settings.columns.model_fields_set:
        found["findings"] = ("report",)
    return found


def _cell(row: Row, names: tuple[str, ...], between: str = " ") -> str:
    return between.join(cell for n in names if (cell := row.get(n, "")))


def _study(
    row: Row,
    columns: dict[str, tuple[str, ...]],
    settings: Studies,
    split_of: Callable[[str], str] | None,
    root: Path,
) -> Study:
    """One row as a study; `split_of` None takes the row's split. Raises ValueError."""
    study_id = _cell(row, columns["study_id"], "_")
    if not study_id:
        raise ValueError(f"no study id (column {' + '.join(columns['study_id'])} is empty)")
    patient = _cell(row, columns.get("patient_id", ()), "_") or study_id
    split = _cell(row, columns.get("split", ())) if settings.split_by == "source" else ""
    if split_of is None and not split:
        raise ValueError(UNSPLIT)
    texts: dict[str, Any] = {name: " ".join(_cell(row, columns.get(name, ())).split()) for name in TEXTS}
    return Study(
        study_id=study_id,
        patient_id=patient,
        split=split_of(patient) if split_of and not split else known_split(split, settings.split_names),
        images=_images(row, columns, settings.list_separator, root),
        source="csv",
        **texts,
    )


def _images(row: Row, columns: dict[str, tuple[str, ...]], separator: str, root: Path) -> tuple[tuple[str, str], ...]:
    """(path, view); where a row does not have as many views as images, it does not say whose they are: unknown."""
    paths, views = (
        [part.strip() for n in columns.get(name, ()) for part in row.get(n, "").split(separator)]
        for name in ("images", "views")
    )
    if len(views) != len(paths):
        views = ["unknown"] * len(paths)
    return tuple((inside_root(p, root), v or "unknown") for p, v in zip(paths, views, strict=True) if p)


def _joined(first: Study, other: Study, drops: Drops) -> Study:
    """Two rows of one study as one."""
    if any(getattr(first, name) != getattr(other, name) for name in ("patient_id", "split")):
        drops.add(
            "contradicting row", f"{drops.where(other.study_id)}: a second row with another patient or split; fix it"
        )
        return first
    if any(getattr(other, name) not in ("", getattr(first, name)) for name in TEXTS):
        drops.note("studies with a second row of other text: the first row's was taken")
    new = tuple(i for i in other.images if i not in first.images)
    return replace(first, images=first.images + new)
