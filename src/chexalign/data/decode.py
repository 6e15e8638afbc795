"""Bytes of a PNG, JPEG, TIFF, … → one upright 8-bit image. What the bytes are is told by their content, not by a name."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from PIL.Image import Transpose

from chexalign.data.decode_grey import eight_bit

FORMATS = ("PNG", "JPEG", "JPEG2000", "TIFF", "BMP", "GIF", "WEBP", "PPM")  # none that runs another program
DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")  # modes that PIL would clip to white
MOST_PIXELS = 100_000_000  # of one image; four times the largest radiograph that detectors make; our choice
SUFFIXES = (".dcm", ".dicom")
ORIENTATION = 0x0112  # EXIF tag: where the first row and column of the stored image lie
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
REDUCED_PAGE = 254  # TIFF tag NewSubfileType: bit 0 says that a page is a smaller copy of another


def is_dicom(data: bytes, name: str) -> bool:
    """By the mark at byte 128; without it by the name, or by a first element of group 2 or 8 as older exports have."""
    if data[128:132] == b"DICM":
        return True
    bare = len(data) > 8 and data[:2] in (b"\x02\x00", b"\x08\x00") and data[3] == 0
    return bare or name.lower().endswith(SUFFIXES)


def check_size(width: int, height: int) -> None:
    """Raise ValueError for an image that memory should not be spent on."""
    if width < 1 or height < 1 or width * height > MOST_PIXELS:
        raise ValueError(f"{width} × {height} pixels; at most {MOST_PIXELS // 1_000_000} million are read")


def read_raster(data: bytes, smallest: int | None = None) -> Image.Image:
    """One image, turned as its EXIF orientation says, greyscale of more than 8 bits scaled by its robust range.

    `smallest`: a JPEG may come out reduced by 2, 4 or 8 as long as its sides keep that many pixels.
    Raises ValueError for several frames, and what PIL raises for damage.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        check_size(*image.size)
        _one_frame(image)
        if smallest and image.format == "JPEG":
            image.draft(None, (max(1, min(image.width, smallest)), max(1, min(image.height, smallest))))
        image.load()
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
        read = Image.fromarray(eight_bit(np.asarray(image))) if image.mode in DEEP else image
        return read if turn is None else read.transpose(turn)


def raster_size(data: bytes) -> tuple[int, int]:
    """(width, height) that `read_raster` gives without reduction, from the header alone."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        sideways = image.format != "TIFF" and image.getexif().get(ORIENTATION, 1) in (
            5,
            6,
            7,
            8,
        )  # PIL turns TIFF itself
        return (height, width) if sideways else (width, height)


def _one_frame(image: Image.Image) -> None:
    """A file is one radiograph: several full pages or an animation are refused. Reduced copies are passed by."""
    frames = getattr(image, "n_frames", 1)
    if frames == 1 or image.format == "MPO":
        return
    full = 0
    for k in range(min(frames, 16)):
        image.seek(k)
        reduced = image.format == "TIFF" and int(image.tag_v2.get(REDUCED_PAGE, 0)) & 1  # type: ignore[attr-defined]
        full += not reduced
    image.seek(0)
    if full > 1:
        raise ValueError(f"it holds {frames} frames: which one is meant is not known")
