"""R2Gen's annotation.json, of IU X-ray and of MIMIC-CXR: the split that most papers on report generation use.

Source of the format: cuhksz-nlp/R2Gen. It names neither the view of an image nor, for IU X-ray, the order of the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from chexalign.data.drops import Drops
from chexalign.data.paths import image_folder, inside_root
from chexalign.data.sources.common import need_file, need_root, read_json_file, spaced
from chexalign.data.splits import known_split
from chexalign.recipe.studies import Studies
from chexalign.records import Study

FILE = "annotation.json"


def r2gen(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """`root` holds annotation.json and images/. By study, the rows of one study are one; by image, they are as R2Gen's."""
    root = need_root(settings, "annotation.json and images/")
    yield from read_annotation(need_file(root, (FILE,), "annotation.json and images/"), settings, folder, drops)


def read_annotation(path: Path, settings: Studies, folder: Path, drops: Drops) -> Iterator[Study]:
    """The studies of an annotation.json. `report` is the findings; a MIMIC row is an image and names its study."""
    root = image_folder(settings, folder)
    base = next((p for p in (root / "images", root) if p.is_dir()), root)
    found: dict[str, Study] = {}
    for split, row in _rows(path, drops):
        try:
            study = _study(row, split, settings.unit == "image", base, root)
        except (KeyError, TypeError, ValueError) as error:
            drops.add("bad row", f"{path.name}: {split} {row.get('id')}: {error}; fix the row or remove it")
            continue
        first = found.get(study.study_id)
        if first is not None and settings.unit == "study":
            study = replace(first, images=first.images + study.images)
        elif first is not None:
            drops.add("duplicate study id", f"{path.name}: {study.study_id} is there twice; remove one")
            continue
        found[study.study_id] = study
    yield from found.values()


def uid_of(r2gen_id: str) -> str:
    """The OpenI number of an IU X-ray id: CXR1_1_IM-0001 and CXR1 → 1."""
    return r2gen_id.removeprefix("CXR").split("_")[0]


def split_of_uids(folder: Path) -> dict[str, str] | None:
    """OpenI number → R2Gen's split, from the annotation.json in the folder; None where there is none."""
    path = folder / FILE
    return {uid_of(row["id"]): split for split, row in _rows(path, Drops())} if path.is_file() else None


def _rows(path: Path, drops: Drops) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, rows in read_json_file(path).items():
        split = known_split(name)
        for row in rows:
            if isinstance(row, dict):
                yield split, row
            else:
                drops.add("bad row", f"{path.name}: {name} holds a row that is no object; remove it")


def _study(row: dict[str, Any], split: str, by_image: bool, base: Path, root: Path) -> Study:
    mimic = "study_id" in row
    paths = row["image_path"] if isinstance(row["image_path"], list) else [row["image_path"]]
    return Study(
        study_id=str(row["study_id"]) if mimic and not by_image else str(row["id"]),
        patient_id=str(row["subject_id"]) if mimic else uid_of(str(row["id"])),
        split=split,
        images=tuple((inside_root(p, root, base), "unknown") for p in paths),
        findings=spaced(row["report"]),
        source="r2gen" if mimic else "iu_xray",
    )
