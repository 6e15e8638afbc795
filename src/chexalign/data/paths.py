"""Image paths of tables → paths relative to the folder that they must stay inside."""

from __future__ import annotations

import os.path
from pathlib import Path, PurePosixPath, PureWindowsPath

from chexalign.data.registry import source_entry
from chexalign.recipe.studies import Studies


def image_folder(settings: Studies, folder: Path) -> Path:
    """The folder that the image paths of studies.jsonl are relative to; `folder` where a source draws or has none."""
    roots = [_own_root(part, folder) for part in settings.parts()]
    return roots[0] if len(roots) == 1 else Path(os.path.commonpath([r.absolute() for r in roots]))


def _own_root(settings: Studies, folder: Path) -> Path:
    if settings.image_root is not None:
        return settings.image_root
    entry = source_entry(settings.source)
    if entry.is_drawn or entry.writes_images or settings.root is None:
        return folder
    return settings.root.parent if settings.root.is_file() else settings.root


def inside_root(given: str, root: Path, base: Path | None = None) -> str:
    """The path relative to `root`; what is relative is so to `base` (else to `root`). Windows' separators are turned.

    Raises ValueError where it leaves the root. Links are not followed here: that is refused where the image is opened.
    """
    posix = PureWindowsPath(given).as_posix() if "\\" in given and "/" not in given else given
    if PureWindowsPath(posix).drive:
        raise ValueError("an image path names a Windows drive; give it relative to studies.image_root")
    if "\x00" in posix:
        raise ValueError("an image path holds a NUL character")
    start = os.path.abspath(root)
    full = os.path.normpath(os.path.join(os.path.abspath(base or root), posix))
    relative = os.path.relpath(full, start)
    if PurePosixPath(relative).parts[:1] == ("..",) or relative == ".":
        raise ValueError("an image path leaves the folder of the images; name that folder with studies.image_root=DIR")
    return relative
