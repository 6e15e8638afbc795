"""Source `iu_xray`: the Indiana University chest X-rays in the layouts that they are passed on in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from chexalign.data.drops import Drops
from chexalign.data.openi import read_folder
from chexalign.data.sources.common import json_lines, need_root, spaced
from chexalign.data.sources.r2gen import FILE, read_annotation, split_of_uids, uid_of
from chexalign.data.splits import by_patient
from chexalign.data.tables import read_plain
from chexalign.errors import RecipeError
from chexalign.recipe.studies import Studies
from chexalign.records import Study

HOLDS = "studies.jsonl, indiana_reports.csv, annotation.json or OpenI's .xml files"
OUTSIDE = "not in R2Gen's split"


def iu_xray(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """`root` is one of: studies.jsonl with images/, Kaggle's two tables, R2Gen's annotation.json, OpenI's XML files.

    Each uid is one patient: the set names none. `split_by: r2gen` takes R2Gen's split (studies.jsonl has it as
    `r2gen_split`, beside the other layouts lies annotation.json) and drops what is not in it.
    """
    root = need_root(settings, HOLDS)
    if (root / "studies.jsonl").is_file():
        yield from _own_layout(root / "studies.jsonl", settings, seed, drops)
    elif (root / "indiana_reports.csv").is_file():
        yield from _in_split(_kaggle(root, by_patient(settings, seed)), root, settings, drops)
    elif (root / FILE).is_file():
        yield from read_annotation(root / FILE, settings, folder, drops)
    elif root.is_dir() and next(root.rglob("*.xml"), None) is not None:
        yield from _in_split(read_folder(root, by_patient(settings, seed)), root, settings, drops)
    else:
        raise RecipeError(f"studies.root {root} holds none of {HOLDS}; point it at the folder that does")


def _own_layout(path: Path, settings: Studies, seed: int, drops: Drops) -> Iterator[Study]:
    split_of, r2gen = by_patient(settings, seed), settings.split_by == "r2gen"
    for number, row in json_lines(path, drops):
        try:
            split = row.get("r2gen_split") if r2gen else split_of(row["uid"])
            if split is None:
                where = f"{path.name}:{number}: study {row['uid']}"
                drops.add(OUTSIDE, f"{where} is {OUTSIDE}; studies.split_by=patient keeps it", asked=True)
                continue
            study = Study(
                study_id=row["uid"],
                patient_id=row["uid"],
                split=split,
                images=tuple((i["file"], i["view"]) for i in row["images"]),
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


def _kaggle(root: Path, split_of: Callable[[str], str]) -> Iterator[Study]:
    """indiana_reports.csv with indiana_projections.csv, which names the view of each image."""
    folder = next((d for d in ("images/images_normalized", "images", "images_normalized") if (root / d).is_dir()), "")
    images: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for uid, name, view in read_plain(root / "indiana_projections.csv", ("uid", "filename", "projection")):
        images[uid].append((f"{folder}/{name}".lstrip("/"), view))
    columns = ("uid", "MeSH", "indication", "comparison", "findings", "impression")
    for uid, mesh, *texts in read_plain(root / "indiana_reports.csv", columns):
        indication, comparison, findings, impression = map(spaced, texts)
        yield Study(
            study_id=uid,
            patient_id=uid,
            split=split_of(uid),
            images=tuple(images[uid]),
            indication=indication,
            comparison=comparison,
            findings=findings,
            impression=impression,
            labels={"mesh": [m for m in mesh.split(";") if m]},
            source="iu_xray",
        )


def _in_split(studies: Iterator[Study], root: Path, settings: Studies, drops: Drops) -> Iterator[Study]:
    """The studies with R2Gen's split, where the recipe asks for it."""
    if settings.split_by != "r2gen":
        yield from studies
        return
    splits = split_of_uids(root)
    if splits is None:
        raise RecipeError(f"studies.split_by is r2gen: put R2Gen's {FILE} of IU X-ray into {root}")
    for study in studies:
        split = splits.get(uid_of(study.study_id))
        if split is None:
            drops.add(OUTSIDE, f"study {study.study_id} is {OUTSIDE}; studies.split_by=patient keeps it", asked=True)
        else:
            yield replace(study, split=split)
