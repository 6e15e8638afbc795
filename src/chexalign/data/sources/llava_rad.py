"""Source `llava_rad`: LLaVA-Rad's chat_*.json, AP and PA images of MIMIC-CXR with rule-based or GPT-4 findings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from chexalign.data.drops import Drops
from chexalign.data.paths import image_folder, inside_root
from chexalign.data.sources.common import FINDINGS_14, chexpert_labels, need_root, read_json_file, spaced
from chexalign.errors import RecipeError
from chexalign.recipe.studies import Studies
from chexalign.records import Study

SPLITS = {"train": "train", "dev": "val", "val": "val", "test": "test"}  # a word of the file's name → split


def llava_rad(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """`root` is a chat_*.json or the folder that holds them; `image_root` the folder with mimic/ or with files/.

    An image is there twice, with the text of the report's findings and with GPT-4's: `generated_by` says which is taken.
    """
    root = need_root(settings, "LLaVA-Rad's chat_*.json")
    files = sorted(root.glob("chat_*.json*")) if root.is_dir() else [root]
    if not files:
        raise RecipeError(f"studies.root {root} holds no chat_*.json; point it at the folder that does")
    images = image_folder(settings, folder)
    swap = not (images / "mimic").is_dir() and (images / "files").is_dir()  # the JPG release has no folder mimic/
    found: dict[str, Study] = {}
    for path in files:
        split = next((s for word, s in SPLITS.items() if f"_{word}" in path.name), None)
        if split is None:
            raise RecipeError(f"{path.name} names no split: its name must hold _train, _dev, _val or _test")
        for row in read_json_file(path):
            if row.get("generate_method", settings.generated_by) != settings.generated_by:
                drops.note(f"rows of the other text ({row['generate_method']}; studies.generated_by)")
                continue
            _add(found, row, split, settings, (images, swap), drops)
    yield from found.values()


def _add(
    found: dict[str, Study], row: dict[str, Any], split: str, settings: Studies, place: tuple[Path, bool], drops: Drops
) -> None:
    try:
        study = _study(row, split, settings.unit == "image", *place)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        drops.add("bad row", f"{row.get('id')}: {type(error).__name__} {error}; fix the row or remove it", split)
        return
    first = found.get(study.study_id)
    new = study if first is None else replace(first, images=first.images + study.images)
    found[study.study_id] = new


def _study(row: dict[str, Any], split: str, by_image: bool, root: Path, swap: bool) -> Study:
    subject, _, number = row["id"].partition("_")
    path = row["image"].replace("mimic/", "files/", 1) if swap else row["image"]
    said = [turn["value"] for turn in row["conversations"] if turn["from"] == "gpt"]
    labels = chexpert_labels(row.get("chexpert_labels") or {}, FINDINGS_14)
    return Study(
        study_id=Path(path).stem if by_image else number,
        patient_id=subject,
        split=split,
        images=((inside_root(path, root), row.get("view") or ""),),
        indication=next((t for k in ("reason", "indication", "history") if (t := spaced(row.get(k)))), ""),
        findings=spaced(said[0]),
        impression=spaced(row.get("impression")),
        labels={"study": number, "chexpert_conclusion": labels},
        source="llava_rad",
    )
