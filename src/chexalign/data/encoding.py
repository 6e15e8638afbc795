"""Text files in whatever encoding they come: recognised where that is certain, refused where it is not, never mangled."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from chexalign.data.western import reads_as_western, unlikely_lines
from chexalign.errors import RecipeError, WorkError

MARKS = (  # byte-order marks; UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SOME = 1 << 16  # bytes in which NULs are looked for


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked where it is .gz. Raises WorkError where it cannot be read."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as handle:
            yield handle  # type: ignore[misc]
    except (EOFError, zlib.error, OSError) as error:
        raise WorkError(f"{path.name} cannot be read ({error}); restore it or download it again") from error


@contextmanager
def open_text(path: Path, encoding: str | None = None) -> Iterator[IO[str]]:
    """The file as text; its lines keep their own ends. Bytes that are no UTF-8 in a UTF-8 file come as lone surrogates.

    `encoding` None recognises byte-order marks, UTF-8, UTF-16 without a mark, and Windows' cp1252 where the text reads as
    one of its languages. Raises RecipeError where nothing fits, and where the encoding named does not.
    """
    found = recognise(path) if encoding is None else checked(path, encoding)
    errors = "surrogateescape" if found in ("utf-8", "utf-8-sig") else "strict"
    with open_bytes(path) as handle, io.TextIOWrapper(handle, found, errors, newline="") as text:
        yield text


def is_damaged(text: str) -> bool:
    """Whether a text of `open_text` held bytes that are not UTF-8."""
    return not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text)


def recognise(path: Path) -> str:
    """The name of the file's encoding. Raises RecipeError where it is not certain."""
    start = _start(path)
    if marked := _marked(start):
        return marked
    if b"\x00" in start and (wide := _wide(start)):
        return wide
    valid, invalid = _utf8_lines(path)
    if invalid <= valid:  # single broken rows are dropped by those who read them
        return "utf-8"
    _refuse_unlikely(path, "cp1252", sure=False)
    return "cp1252"


def checked(path: Path, encoding: str) -> str:
    """The encoding that the recipe names, tried on the whole file. Raises RecipeError where it does not fit."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise RecipeError(f"studies.encoding: no encoding {encoding!r}; try utf-8, utf-16 or cp1252") from None
    if marked := _marked(_start(path)):
        if name.split("-")[:2] != marked.split("-")[:2]:
            raise RecipeError(
                f"studies.encoding {encoding}: the mark at the start of {path.name} says {marked}; remove the key"
            )
        return marked
    if not name.startswith("utf"):
        valid, invalid = _utf8_lines(path)
        if valid and not invalid:
            raise RecipeError(f"studies.encoding {encoding}: {path.name} is UTF-8; remove the key")
    _refuse_unlikely(path, name, sure=True)
    return name


def _start(path: Path) -> bytes:
    with open_bytes(path) as handle:
        return handle.read(SOME)


def _marked(start: bytes) -> str | None:
    return next((name for mark, name in MARKS if start.startswith(mark)), None)


def _wide(start: bytes) -> str | None:
    """UTF-16 without a mark: in Latin text every second byte is NUL."""
    even, odd, half = start[0::2].count(0), start[1::2].count(0), len(start) // 2
    if odd > 0.4 * half and even < 0.1 * half:
        return "utf-16-le"
    return "utf-16-be" if even > 0.4 * half and odd < 0.1 * half else None


def _utf8_lines(path: Path) -> tuple[int, int]:
    """How many lines beyond ASCII are UTF-8, and how many are not."""
    valid = invalid = 0
    with open_bytes(path) as handle:
        for line in handle:
            if line.isascii():
                continue
            try:
                line.decode()
            except UnicodeDecodeError:
                invalid += 1
            else:
                valid += 1
    return valid, invalid


def _refuse_unlikely(path: Path, name: str, sure: bool) -> None:
    """Raise RecipeError unless the whole file decodes, without what a wrong table leaves in a text."""
    special: list[tuple[int, str]] = []
    row = 0
    try:
        with open_bytes(path) as handle, io.TextIOWrapper(handle, name, "strict") as text:
            for row, line in enumerate(text, start=1):
                if not line.isascii() or "\x00" in line:
                    special.append((row, line))
    except UnicodeError as error:
        raise RecipeError(_refusal(path, name, row + 1)) from error
    odd = unlikely_lines(special, wide=name.startswith("utf"))
    if len(odd) > len(special) / 10 or (not sure and not reads_as_western(text for _, text in special)):
        raise RecipeError(_refusal(path, name, (odd or [special[0][0]])[0]))


def _refusal(path: Path, name: str, row: int) -> str:
    return (
        f"{path.name}: line {row} does not read as {name}; name the encoding that it was written in with "
        "studies.encoding=NAME (utf-8, utf-16, cp1252, cp1250, cp850, mac-roman …), or save it as UTF-8"
    )
