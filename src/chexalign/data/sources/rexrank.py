"""Source `rexrank`: a test set of ReXrank (MIMIC-CXR, CheXpert Plus, IU X-ray or ReXGradient), to be evaluated on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chexalign.data.drops import Drops
from chexalign.data.paths import image_folder, inside_root
from chexalign.data.sources.common import need_root, read_json_file, spaced
from chexalign.data.splits import known_split
from chexalign.errors import RecipeError
from chexalign.recipe.studies import Studies
from chexalign.records import Study

CONTEXT = re.compile(r"(Age|Gender|Indication|Comparison)\s*:")
REPORT = re.compile(r"Findings:(?P<findings>.*?)(?:Impression:(?P<impression>.*))?$", re.DOTALL | re.IGNORECASE)


def rexrank(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """`root` is the JSON, or a folder with one; images lie in images/ beside it, else in studies.image_root.

    Each study is taken as one patient: the file names none. The image that ReXrank shows a one-image model is first.
    """
    root = need_root(settings, "ReXrank's JSON and images/")
    files = sorted(root.glob("*.json")) if root.is_dir() else [root]
    files = [p for p in files if "rexrank" in p.name.lower()] or files
    if len(files) != 1:
        raise RecipeError(f"studies.root {root} holds {len(files)} JSON files; name one with studies.root=FILE")
    images = image_folder(settings, folder)
    base = images / "images" if settings.image_root is None and (images / "images").is_dir() else images
    for name, row in read_json_file(files[0]).items():
        try:
            yield _study(name, row, images, base)
        except (KeyError, TypeError, ValueError) as error:
            drops.add("bad row", f"{files[0].name}: study {name}: {type(error).__name__} {error}; fix or remove it")


def _study(name: str, row: dict[str, Any], root: Path, base: Path) -> Study:
    paths = row.get("image_path") or [row["key_image_path"]]
    views = row.get("frontal_lateral") or []
    views = views if len(views) == len(paths) else ["unknown"] * len(paths)
    images = sorted(zip(paths, views, strict=True), key=lambda i: i[0] != row.get("key_image_path"))
    context, report = _context(spaced(row.get("context"))), REPORT.search(row.get("report") or "")
    findings, impression = (
        _text(row.get(f"section_{part}")) or (_text(report[part]) if report and report[part] else "")
        for part in ("findings", "impression")
    )
    return Study(
        study_id=name,
        patient_id=name,
        split=known_split(row.get("split") or "test"),
        images=tuple((inside_root(p, root, base), v) for p, v in images),
        indication=context.get("Indication", ""),
        comparison=context.get("Comparison", ""),
        findings=findings,
        impression=impression,
        source="rexrank",
    )


def _text(value: Any) -> str:
    """A section; "None." stands for one that the report does not have."""
    text = spaced(value)
    return "" if text.rstrip(".").lower() == "none" else text


def _context(text: str) -> dict[str, str]:
    """Age, Gender, Indication and Comparison, which are written without a space between them; "nan" is none."""
    parts = CONTEXT.split(text)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return {key: "" if value.strip(" .").lower() == "nan" else value.strip() for key, value in pairs}
