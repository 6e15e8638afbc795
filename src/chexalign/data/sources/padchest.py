"""Source `padchest`: PadChest's Spanish reports (lower case, stemmed, no impression) and its labels."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from chexalign.data.drops import Drops
from chexalign.data.paths import image_folder
from chexalign.data.sources.common import need_root, spaced
from chexalign.data.splits import by_patient
from chexalign.data.tables import read_plain
from chexalign.errors import RecipeError
from chexalign.recipe.studies import Studies
from chexalign.records import Study

COLUMNS = ("ImageID", "ImageDir", "StudyID", "PatientID", "Projection", "ViewPosition_DICOM", "Report", "Labels")
NO_CHEST = ("COSTAL", "EXCLUDE")  # ribs; not to be used


def padchest(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """`root` holds PADCHEST_…csv(.gz) and the images, in images/ or in the folders 0 to 54. All rows are read first."""
    root = need_root(settings, "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz and the images")
    tables = sorted(root.glob("PADCHEST*.csv*")) if root.is_dir() else [root]
    if len(tables) != 1:
        raise RecipeError(
            f"studies.root {root} holds {len(tables)} tables PADCHEST*.csv; name one with studies.root=FILE"
        )
    flat = (image_folder(settings, folder) / "images").is_dir()
    split_of = by_patient(settings, seed)
    studies: dict[str, Study] = {}
    for row, (image, place, study_id, patient, projection, dicom_view, report, labels) in enumerate(
        read_plain(tables[0], COLUMNS), start=2
    ):
        try:
            named = _labels(labels)
        except (ValueError, SyntaxError):
            drops.add("bad row", f"{tables[0].name}:{row}: Labels is no list; fix the row or remove it")
            continue
        new: tuple[tuple[str, str], ...] = (
            (f"images/{image}" if flat else f"{place}/{image}", projection or dicom_view),
        )
        if projection in NO_CHEST:
            drops.note(f"images of no chest view ({projection}): left out")
            new = ()
        first = studies.get(study_id)
        studies[study_id] = (
            replace(first, images=first.images + new)
            if first is not None
            else Study(
                study_id=study_id,
                patient_id=patient,
                split=split_of(patient),
                images=new,
                findings=spaced(report),
                labels={"padchest": named},
                source="padchest",
            )
        )
    yield from studies.values()


def _labels(text: str) -> list[str]:
    """A Python list written as text, with spaces and empty strings in it. Raises ValueError or SyntaxError."""
    if not text.strip() or text == "nan":
        return []
    value = ast.literal_eval(text)
    if not isinstance(value, list):
        raise ValueError("not a list")
    return [name.strip() for name in value if isinstance(name, str) and name.strip()]
