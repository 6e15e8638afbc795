"""What a broken image file raises, and the errors of decoders that are turned into it."""

from __future__ import annotations

import struct
import zlib
from functools import cache

from PIL import Image

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


class ImageError(WorkError):
    """This image cannot be used; the study that needs it is dropped and counted."""

    def __init__(self, said: str, path: str | None = None):
        """`said` follows the image's path, where one is given: "is missing; restore it"."""
        self.said = said
        self.path = path
        super().__init__(said if path is None else f"image {printable(path) or '(an empty path)'} {said}")

    def naming(self, name: str) -> str:
        """The same with `name` in the path's place: a folder may be called by a patient's name."""
        return self.said if self.path is None else f"image {name} {self.said}"
