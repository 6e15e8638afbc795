"""Source `rexgradient`: ReXGradient-160K, 140,000 / 10,000 / 10,000 studies with official splits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chexalign.data.drops import Drops
from chexalign.data.paths import image_folder, inside_root
from chexalign.data.sources.common import need_root, read_json_file, spaced
from chexalign.errors import RecipeError
from chexalign.recipe.studies import Studies
from chexalign.records import Study

FILES = {
    s: f"{name}_metadata_view_position.json" for s, name in (("train", "train"), ("val", "valid"), ("test", "test"))
}


def rexgradient(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """`root` is the folder with metadata/ and deid_png/; the paths of the metadata begin with ../ and stay inside it."""
    root = need_root(settings, "metadata/ and deid_png/")
    metadata = root / "metadata" if (root / "metadata").is_dir() else root
    there = {split: path for split, name in FILES.items() if (path := metadata / name).is_file()}
    if not there:
        raise RecipeError(
            f"studies.root {root} holds no metadata/{FILES['train']}; the CSV of the set has no image paths"
        )
    images = image_folder(settings, folder)
    base = images / "metadata"
    for split, path in there.items():
        for name, row in read_json_file(path).items():
            try:
                yield _study(name, row, split, images, base)
            except (KeyError, TypeError, ValueError) as error:
                drops.add(
                    "bad row", f"{path.name}: study {name}: {type(error).__name__} {error}; fix or remove it", split
                )


def _study(name: str, row: dict[str, Any], split: str, root: Path, base: Path) -> Study:
    paths, views = row["ImagePath"], row.get("ImageViewPosition") or []
    views = views if len(views) == len(paths) else [None] * len(paths)
    return Study(
        study_id=name,
        patient_id=str(row["PatientID"]),
        split=split,
        images=tuple(
            (inside_root(p, root, base), (v or "").replace("_", " ")) for p, v in zip(paths, views, strict=True)
        ),
        indication=spaced(row.get("Indication")),
        comparison=spaced(row.get("Comparison")),
        findings=spaced(row.get("Findings")),
        impression=spaced(row.get("Impression")),
        source="rexgradient",
    )
