"""Reads a run folder: each result file or None, and images that lie inside the folder."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chexalign.data import SOURCES
from chexalign.errors import WorkError
from chexalign.results import Results

WARMUP_LOGS = {
    "tower": "image tower",
    "finding_list": "finding lists",
    "report": "reports",
    "normal_report": "normal reports",
}
_IMAGE_TYPES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True)
class RunFiles:
    """What a run folder holds; None (or an empty dict of logs) where a file is missing."""

    folder: Path
    manifest: dict[str, Any] | None
    results: Results | None
    examples: list[dict[str, Any]] | None
    pairs: dict[str, Any] | None
    train_log: list[dict[str, Any]] | None
    per_study: list[dict[str, Any]] | None
    over_optimisation: dict[str, Any] | None = None
    warmup: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def mapping(value: Any) -> dict[str, Any]:
    """The value when it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def read_run(folder: Path) -> RunFiles:
    """Read every result file of the run. Raises WorkError where there is nothing to report or a file is broken."""
    if not folder.is_dir():
        raise WorkError(f"no run folder {folder}")
    logs = {name: read_rows(folder / "warmup" / f"{name}_log.jsonl") for name in WARMUP_LOGS}
    run = RunFiles(
        folder=folder,
        manifest=read_json(folder / "manifest.json", dict),
        results=_results(folder / "results.json"),
        examples=read_json(folder / "examples.json", list),
        pairs=read_json(folder / "pairs_summary.json", dict),
        train_log=read_rows(folder / "train_log.jsonl"),
        per_study=read_rows(folder / "evaluation" / "per_study.jsonl"),
        over_optimisation=read_json(folder / "evaluation" / "over_optimisation.json", dict),
        warmup={name: rows for name, rows in logs.items() if rows},
    )
    if run.manifest is None and run.results is None:
        raise WorkError(f"nothing to report in {folder}: neither manifest.json nor results.json is there")
    return run


def read_results(folder: Path) -> Results:
    """`results.json` of a run. Raises WorkError where it is missing or is none."""
    results = _results(folder / "results.json")
    if results is None:
        raise WorkError(f"{folder} has no results.json: evaluate the run first")
    return results


def _results(path: Path) -> Results | None:
    row = read_json(path, dict)
    try:
        return None if row is None else Results.from_dict(row)
    except ValueError as error:
        raise WorkError(f"{path}: {error}") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """`manifest.json` of a run, empty where it is missing."""
    return read_json(folder / "manifest.json", dict) or {}


def is_drawn(manifest: dict[str, Any]) -> bool:
    """Whether the run's studies were drawn by a program. A manifest without a source we know says nothing: False."""
    entry = SOURCES.get(str(mapping(mapping(manifest.get("recipe")).get("studies")).get("source")))
    return entry is not None and entry.is_drawn


def read_rows(path: Path) -> list[dict[str, Any]] | None:
    """The rows of a JSON-lines file, None where there is no file. A last line cut off by a crash is left out."""
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise WorkError(f"{path}: {error}") from error
    rows: list[dict[str, Any]] = []
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=lambda _: None)  # a diverged loss is a gap in the curve
        except ValueError as error:
            if i == len(lines) - 1:
                break
            raise WorkError(f"{path}, line {i + 1}: {error}") from error
        if not isinstance(row, dict):
            raise WorkError(f"{path}, line {i + 1}: not a JSON object")
        rows.append(row)
    return rows


def read_json(path: Path, kind: type) -> Any:
    """None for no file. Raises WorkError for what is not JSON, holds NaN or infinity, or is no `kind` (dict or list)."""
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except ValueError as error:
        raise WorkError(f"{path}: {error}") from error
    if not isinstance(value, kind):
        raise WorkError(f"{path}: expected a JSON {'object' if kind is dict else 'list'}")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}; an unknown number is null")


def image_uri(folder: Path, name: str) -> str | None:
    """A PNG or JPEG of the run as a `data:` URI; None where the file is missing or something else.

    Raises WorkError for a path that leaves the run folder, whether by `..`, an absolute path or a link.
    """
    root = folder.resolve()
    try:
        target = (root / name).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name the file system refuses
        raise WorkError(f"examples.json names an image that cannot be read: {name!r}: {error}") from error
    if Path(name).is_absolute() or not target.is_relative_to(root):
        raise WorkError(f"examples.json names an image outside the run folder: {name!r}")
    if not target.is_file():
        return None
    data = target.read_bytes()
    for magic, media_type in _IMAGE_TYPES.items():
        if data.startswith(magic):
            return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
    return None
