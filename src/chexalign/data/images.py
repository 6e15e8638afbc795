"""Image files → PIL images: PNG, JPEG, TIFF and DICOM, confined to their root, with one clear line for what is broken."""

from __future__ import annotations

import struct
import warnings
import zlib
from functools import cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from chexalign.data.decode import FORMATS, is_dicom, read_raster
from chexalign.errors import WorkError, printable

# What the decoders underneath raise on damaged bytes: all that a file's content can cause, and no fault of the call.
DECODING_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    Image.DecompressionBombError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@cache
def decoding_failures() -> tuple[type[BaseException], ...]:
    """DECODING_FAILURES and pydicom's own, where it is installed."""
    try:
        from pydicom.errors import BytesLengthException, InvalidDicomError
    except ImportError:
        return DECODING_FAILURES
    return (*DECODING_FAILURES, BytesLengthException, InvalidDicomError)


LONGEST = 160  # characters of a decoder's own words that are shown


class ImageError(WorkError):
    """This image cannot be used; the study that needs it is dropped and counted."""


def inside(root: Path, relative: str) -> Path:
    """root/relative, refused when it would leave the root (`..`, an absolute path, a link that points outside)."""
    shown = f"image path '{printable(relative)}'"
    try:
        path = (root / relative).resolve()
        outside = not path.is_relative_to(root.resolve())
    except RuntimeError as error:
        raise ImageError(f"{shown} is a link that leads back to itself; correct it") from error
    except (OSError, ValueError) as error:  # a NUL, a name that is too long
        raise ImageError(f"{shown} is no path ({_told(error)}); correct it") from error
    if outside:
        raise ImageError(f"{shown} leaves the folder of the images; give a path inside it")
    return path


def read_image(root: Path, relative: str) -> bytes:
    """The bytes of one image file. Raises ImageError where there is no plain file of that name inside `root`."""
    path, shown = inside(root, relative), printable(relative)
    try:
        if not path.exists():
            raise ImageError(f"image {shown} is missing; restore it or remove its study")
        if not path.is_file():
            raise ImageError(f"image {shown or '(an empty path)'} is no file; name the image itself")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ImageError(f"image {shown} cannot be read ({_told(error)}); restore it") from error


def load_image(root: Path, relative: str) -> Image.Image:
    """Decode one image to 8-bit RGB. Raises ImageError naming the file and the remedy."""
    return decoded(read_image(root, relative), relative)


def decoded(data: bytes, relative: str, mode: str = "RGB", smallest: int | None = None) -> Image.Image:
    """The image in these bytes, upright, in 8 bits, as RGB or grey (`mode` L). Raises ImageError naming `relative`.

    `smallest` allows a JPEG to come out reduced, its sides at least that many pixels: quicker, and as sure to find damage.
    """
    with failures_told(relative), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the decoders: they would show what the file says, a patient's name too
        if is_dicom(data, relative):
            from chexalign.data.dicom_pixels import read_dicom

            return Image.fromarray(read_dicom(data)[0]).convert(mode)
        return read_raster(data, smallest).convert(mode)


class failures_told:
    """Turn what a decoder raises into one ImageError that names the file."""

    def __init__(self, relative: str):
        self.relative = relative

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        if isinstance(error, decoding_failures()):
            told = f"image {printable(self.relative)} cannot be decoded ({_told(error)}); export it again"
            raise ImageError(told) from error


def _told(error: BaseException) -> str:
    """A decoder's own words on one line, without the folder's name; its class where it has none."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}, DICOM"
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(" ".join(words.split()) or type(error).__name__, LONGEST)
