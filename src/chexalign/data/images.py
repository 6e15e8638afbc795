"""Image files → PIL images: PNG, JPEG, TIFF and DICOM, confined to their root, with one clear line for what is broken."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from chexalign.data.decode import FORMATS, is_dicom, read_raster
from chexalign.data.image_errors import ImageError, decoding_failures
from chexalign.errors import printable

LONGEST = 160  # characters of a decoder's own words that are shown


def inside(root: Path, relative: str) -> Path:
    """root/relative, refused when it would leave the root (`..`, an absolute path, a link that points outside)."""
    try:
        path = (root / relative).resolve()
        outside = not path.is_relative_to(root.resolve())
    except RuntimeError as error:
        raise ImageError("is a link that leads back to itself; correct it", relative) from error
    except (OSError, ValueError) as error:  # a NUL, a name that is too long
        raise ImageError(f"has an impossible path ({_told(error)}); correct it", relative) from error
    if outside:
        raise ImageError("leaves the folder of the images; give a path inside it", relative)
    return path


def image_file(root: Path, relative: str) -> Path:
    """Where one image file is. Raises ImageError where there is no plain file of that name inside `root`."""
    path = inside(root, relative)
    try:
        if not path.exists():
            raise ImageError("is missing; restore it or remove its study", relative)
        if not path.is_file():
            raise ImageError("is no file; name the image itself", relative)
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be read ({_told(error)}); restore it", relative) from error
    return path


def read_image(root: Path, relative: str) -> bytes:
    """The bytes of one image file. Raises ImageError where there is no plain file of that name inside `root`."""
    path = image_file(root, relative)
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be read ({_told(error)}); restore it", relative) from error


def load_image(root: Path, relative: str) -> Image.Image:
    """Decode one image to 8-bit RGB. Raises ImageError naming the file and the remedy."""
    return decoded(read_image(root, relative), relative)


def decoded(data: bytes, relative: str, mode: str = "RGB", smallest: int | None = None) -> Image.Image:
    """The image in these bytes, upright, in 8 bits, as RGB or grey (`mode` L). Raises ImageError naming `relative`.

    `smallest` allows a JPEG to come out reduced, its sides at least that many pixels: quicker, and as sure to find damage.
    """
    with failures_told(relative):
        if is_dicom(data, relative):
            from chexalign.data.dicom_pixels import read_dicom

            return Image.fromarray(read_dicom(data)[0]).convert(mode)
        return read_raster(data, smallest).convert(mode)


@contextmanager
def failures_told(relative: str) -> Iterator[None]:
    """Turn what a decoder raises into one ImageError that names the file; its warnings are not shown.

    They would say what the file says, a patient's name too.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except decoding_failures() as error:
        raise ImageError(f"cannot be decoded ({_told(error)}); export it again", relative) from error


def _told(error: BaseException) -> str:
    """A decoder's own words on one line, without the folder's name; its class where it has none."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}, DICOM"
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(" ".join(words.split()) or type(error).__name__, LONGEST)
