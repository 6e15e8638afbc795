"""Tables as rows by name: CSV in any of its dialects, unpacked, with the line that each row begins on."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from chexalign.data.encoding import is_damaged, open_bytes, open_text
from chexalign.errors import RecipeError, WorkError

DELIMITERS = (",", ";", "\t", "|")
MISSING = frozenset({"nan", "null", "<na>", "n/a", "na"})  # what programs write into an empty cell
csv.field_size_limit(min(sys.maxsize, 1 << 30))

Row = dict[str, str]


def read_table(
    path: Path, encoding: str | None = None, delimiter: str | None = None
) -> Iterator[tuple[int, Row | str]]:
    """(line number, cells by column name), and for a row that cannot be used (line number, what is wrong).

    A first line `sep=;` (Excel) is obeyed, a delimiter that is not given is the one that splits the header most. Cells
    are stripped; what stands for an empty cell is empty; rows of empty cells are left out. Cells beyond the header's
    are an error of their row. Raises RecipeError for a header that names a column twice.
    """
    with open_text(path, encoding) as handle:
        lines = iter(handle)
        first, offset = next(lines, ""), 0
        if first.lower().startswith("sep=") and len(first.strip()) == 5:
            delimiter, first, offset = delimiter or first.strip()[4], next(lines, ""), 1
        delimiter = delimiter or _delimiter(first)
        reader = csv.reader(_again(first, lines), delimiter=delimiter, strict=True)
        header = _header(next(reader, []), path)
        yield from _rows(reader, header, offset)


def read_plain(path: Path, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The named columns of a published table (UTF-8, commas, .gz too), row by row; an optional one may be absent: "".

    Raises RecipeError naming the columns that the table lacks, WorkError where a row is too short or not UTF-8.
    """
    row = 0
    with open_bytes(path) as handle, io.TextIOWrapper(handle, "utf-8-sig", newline="") as text:
        reader = csv.reader(text)
        header = next(reader, [])
        if lost := [n for n in names if n not in header]:
            raise RecipeError(f"{path.name} has no column {', '.join(lost)}; its columns are {', '.join(header)}")
        at = [header.index(n) if n in header else len(header) for n in (*names, *optional)]
        needed = max(at[: len(names)])
        try:
            for row, cells in enumerate(reader, start=2):
                if len(cells) <= needed:
                    if not cells:
                        continue
                    raise WorkError(f"{path.name}: row {row} is cut short; download the file again")
                yield tuple(cells[i] if i < len(cells) else "" for i in at)
        except (csv.Error, UnicodeDecodeError) as error:
            raise WorkError(f"{path.name}: row {row + 1} cannot be read ({error}); download the file again") from error


def read_header(path: Path) -> list[str]:
    """The column names of a published table."""
    with open_bytes(path) as handle, io.TextIOWrapper(handle, "utf-8-sig", newline="") as text:
        return next(csv.reader(text), [])


def find_table(folder: Path, name: str) -> Path | None:
    """`name` or `name`.gz in the folder."""
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def is_missing(cell: str) -> bool:
    """Whether a cell is empty or one of MISSING in any case ("NA", "nan", …): a table's ways to write no value."""
    return not cell or cell.lower() in MISSING


def _again(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _delimiter(header: str) -> str:
    counts = {d: len(next(csv.reader([header], delimiter=d), [])) for d in DELIMITERS}
    return max(DELIMITERS, key=lambda d: counts[d])


def _header(cells: list[str], path: Path) -> list[str]:
    names = [c.strip() for c in cells]
    if twice := sorted({n for n in names if n and names.count(n) > 1}):
        raise RecipeError(f"{path.name}: column {', '.join(twice)} is there twice; rename one")
    if not any(names):
        raise RecipeError(f"{path.name} is empty; its first line must name the columns")
    return names


def _rows(reader: Iterator[list[str]], header: list[str], offset: int) -> Iterator[tuple[int, Row | str]]:
    end = reader.line_num  # type: ignore[attr-defined]
    while True:
        start = end + 1 + offset
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield start, f"not a row of a table ({error})"
            end = reader.line_num  # type: ignore[attr-defined]
            continue
        if cells is None:
            return
        end = reader.line_num  # type: ignore[attr-defined]
        stripped = [c.strip() for c in cells]
        if not any(stripped):
            continue
        if len(stripped) > len(header) and any(stripped[len(header) :]):
            yield start, f"{len(stripped)} cells where the header names {len(header)} columns; quote its delimiters"
            continue
        row = {n: "" if is_missing(c) else c for n, c in zip(header, stripped + [""] * len(header), strict=False) if n}
        yield start, f"bytes that are not UTF-8 in {_damaged(row)}" if _damaged(row) else row


def _damaged(row: Row) -> str:
    return ", ".join(n for n, c in row.items() if is_damaged(c))
