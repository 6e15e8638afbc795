"""Source `chexpert_plus`: df_chexpert_plus_240401.csv with the released PNG files. The official valid set is the test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from chexalign.data.drops import Drops
from chexalign.data.paths import image_folder
from chexalign.data.sources.common import chexpert_labels, need_file, need_root, spaced
from chexalign.data.splits import val_of_train
from chexalign.data.tables import read_plain
from chexalign.errors import WorkError
from chexalign.recipe.studies import Studies
from chexalign.records import Study

TABLE = "df_chexpert_plus_240401.csv"
COLUMNS = (
    "path_to_image", "frontal_lateral", "ap_pa", "deid_patient_id", "split", "section_clinical_history", "section_history",
    "section_comparison", "section_findings", "section_impression",
)  # fmt: skip
ORDER = {"PA": 0, "AP": 1, "": 2, "LATERAL": 2, "LL": 3, "RL": 4}  # CheXagent's: frontals by ap_pa, then laterals


@dataclass
class _Study:
    """The rows of one study: its images, and the texts of its first view (all rows hold one report, other fake dates)."""

    patient: str
    split: str
    first: tuple[int, tuple[str, ...]]
    images: list[tuple[int, int, str, str]] = field(default_factory=list)


def chexpert_plus(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """`root` holds the table and PNG/. The official valid set (200 studies) is the test; val is carved out of train.

    A row of the table is an image; a study is its folder. Findings are rare: 62 of the 200 test studies have some.
    """
    root = need_root(settings, f"{TABLE} and PNG/")
    table = need_file(root if root.is_dir() else root.parent, (TABLE,), f"{TABLE} and PNG/")
    place, suffix = _images(image_folder(settings, folder))
    studies: dict[str, _Study] = {}
    for path, frontal, ap_pa, patient, split, *texts in read_plain(table, COLUMNS):
        if split not in ("train", "valid"):
            drops.add("bad row", f"{table.name}: {path}: split {split!r} is neither train nor valid; download it again")
            continue
        name, view = str(PurePosixPath(path).parent), PurePosixPath(path).stem
        number = int("".join(c for c in view.split("_")[0] if c.isdigit()) or 0)
        study = studies.setdefault(name, _Study(patient, split, (number, tuple(texts))))
        if number < study.first[0]:
            study.first = (number, tuple(texts))
        rank = ORDER.get(ap_pa.upper(), 2) if frontal == "Frontal" else 3
        study.images.append((rank, number, f"{place}{PurePosixPath(path).with_suffix(suffix)}", frontal))
    labels, carved = _chexbert(table.parent), val_of_train(settings, seed)
    for name, study in studies.items():
        split = "test" if study.split == "valid" else carved(study.patient)
        yield _record(name, study, split, labels)


def _record(name: str, study: _Study, split: str, labels: dict[str, dict[str, int]]) -> Study:
    clinical, history, comparison, findings, impression = map(spaced, study.first[1])
    return Study(
        study_id=name,
        patient_id=study.patient,
        split=split,
        images=tuple((path, view) for _, _, path, view in sorted(study.images)),
        indication=clinical or history,
        comparison=comparison,
        findings=findings,
        impression=impression,
        labels={"chexbert": labels[name]} if name in labels else {},
        source="chexpert_plus",
    )


def _images(root: Path) -> tuple[str, str]:
    """(folder in front of the table's paths, suffix): PNG/, PNG/PNG/ where it was unpacked into itself, or neither."""
    for place in ("PNG/PNG/", "PNG/", ""):
        if any((root / place / split).is_dir() for split in ("train", "valid")):
            return place, ".png" if place else _suffix(root)
    return "PNG/", ".png"


def _suffix(root: Path) -> str:
    """Beside the table lie PNG files (root is the PNG folder itself) or the JPEG files of CheXpert."""
    first = next(root.glob("*/patient*/study*/view*"), None)
    return first.suffix if first else ".png"


def _chexbert(folder: Path) -> dict[str, dict[str, int]]:
    """Study → the released CheXbert labels of its findings, of its first row; empty where they are not there."""
    path = folder / "chexbert_labels" / "findings_fixed.json"
    found: dict[str, dict[str, int]] = {}
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8") as handle:
        for number, line in enumerate(handle, start=1):
            try:
                row = json.loads(line)
                found.setdefault(str(PurePosixPath(row["path_to_image"]).parent), chexpert_labels(row))
            except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                raise WorkError(f"{path.name}:{number}: {error}; download it again") from error
    return found
