"""Whether an image file can be used, and what it shows: decoded once, hashed, looked at for blank and saturated films."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chexalign.data.decode import is_dicom, raster_size
from chexalign.data.image_errors import ImageError
from chexalign.data.images import decoded, failures_told, image_file, inside, read_image
from chexalign.errors import WorkError
from chexalign.jsonl import atomic_write
from chexalign.records import Study, _Record

REDUCED = 256  # a JPEG that is only checked comes out reduced, its sides at least so many pixels; our choice
LEAST_RANGE = 8  # grey levels between the .5th and the 99.5th percentile; below, a film is blank; our choice
MOST_CLIPPED = 0.9  # share of pixels at an end of the scale; above, a film is saturated; our choice


@dataclass(frozen=True)
class Job:
    """One image to look at; a DICOM image is also written to `target`, an 8-bit PNG, where it is given."""

    root: str
    path: str
    target: str = ""
    equalise: bool = False
    follow_shape: bool = True


@dataclass(frozen=True)
class CheckedImage(_Record):
    """What was found: `error` in place of the rest, or the digest of the pixels, the size and what is doubtful."""

    path: str
    size: int  # of the file, bytes; with `changed` it says whether the file is still the one that was checked
    changed: int  # nanoseconds
    digest: str = ""
    width: int = 0
    height: int = 0
    doubts: tuple[str, ...] = ()
    error: str | None = None

    @classmethod
    def key_fields(cls) -> tuple[str, ...]:
        """What a ledger row is found by: a file of another size or change time is decoded again."""
        return ("path", "size", "changed")


def stamp(root: Path, path: str) -> tuple[str, int, int]:
    """The key under which an image is checked; size and time are 0 where there is no such file inside `root`."""
    try:
        known = inside(root, path).stat()
    except (ImageError, OSError, ValueError):
        return path, 0, 0
    return path, known.st_size, known.st_mtime_ns


def find_image(root: Path, path: str) -> CheckedImage:
    """Only whether the file is there: its `error` where it is not. Nothing is decoded."""
    try:
        image_file(root, path)
    except ImageError as error:
        return CheckedImage(path, 0, 0, error=error.said)
    return CheckedImage(path, 0, 0)


def check_image(job: Job) -> CheckedImage:
    """Decode the image of this job once. What cannot be decoded comes back as its `error`."""
    root = Path(job.root)
    key = stamp(root, job.path)
    try:
        data = read_image(root, job.path)
        grey, doubts = _looked_at(job, data)
        with failures_told(job.path):
            width, height = grey.size if is_dicom(data, job.path) else raster_size(data)
    except ImageError as error:
        return CheckedImage(*key, error=error.said)
    pixels = np.asarray(grey)
    digest = hashlib.blake2b(f"{width} {height} ".encode() + pixels.tobytes(), digest_size=16).hexdigest()
    return CheckedImage(*key, digest, width, height, (*doubts, *looks(pixels)))


def _looked_at(job: Job, data: bytes) -> tuple[Image.Image, list[str]]:
    """The grey image, and the doubts of a DICOM header; written to the job's target where it has one."""
    if not is_dicom(data, job.path):
        return decoded(data, job.path, "L", smallest=REDUCED), []
    from chexalign.data.dicom_pixels import read_dicom

    with failures_told(job.path):
        pixels, notes = read_dicom(data, job.equalise, job.follow_shape)
        grey = Image.fromarray(pixels).convert("L")
    if job.target:
        file = io.BytesIO()
        grey.save(file, "PNG", compress_level=1)
        with atomic_write(Path(job.target), "wb", durable=False) as handle:
            handle.write(file.getvalue())
    return grey, notes


def looks(pixels: np.ndarray) -> list[str]:
    """`blank` or `saturated` for uint8 (h, w) that show no film; [] otherwise."""
    step = max(1, int((pixels.size / 250_000) ** 0.5))
    counts = np.bincount(pixels[::step, ::step].ravel(), minlength=256)
    total, below = int(counts.sum()), np.cumsum(counts)
    low, high = (int(np.searchsorted(below, total * share, side="right")) for share in (0.005, 0.995))
    if min(high, 255) - low < LEAST_RANGE:
        return ["blank"]
    clipped = max(int(counts[:2].sum()), int(counts[254:].sum()))
    return ["saturated"] if clipped > MOST_CLIPPED * total else []


def duplicates(studies: Iterable[Study], digests: dict[str, str]) -> list[tuple[Study, Study]]:
    """Pairs of studies of different splits that show the same pixels; `digests` by image path."""
    first: dict[str, Study] = {}
    found = []
    for study in studies:
        for path, _view in study.images:
            if digest := digests.get(path):
                known = first.setdefault(digest, study)
                if known.split != study.split:
                    found.append((known, study))
    return found


def as_checked(row: Any) -> CheckedImage:
    """A worker's answer as a record. Raises WorkError for what is none."""
    try:
        return CheckedImage.from_dict(row)
    except (TypeError, ValueError) as error:
        raise WorkError(f"a decoding process answered what is no answer ({error}); run again") from error
