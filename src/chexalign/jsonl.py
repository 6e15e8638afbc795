"""Files that survive `kill -9`: atomic replacement, and keyed JSON-lines ledgers that resume where they stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from chexalign.errors import WorkError
from chexalign.records import _Record

R = TypeVar("R", bound=_Record)


@contextmanager
def atomic_write(path: Path, mode: str = "w", durable: bool = True) -> Iterator[IO[Any]]:
    """Write to a temporary neighbour, flush it to the disk, then rename: readers see the old file or the whole new one.

    `durable=False` skips the flush, for files that are made again when they are damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as handle:
            yield handle
            handle.flush()
            if durable:
                os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document atomically. NaN and infinity are refused (ValueError)."""
    with atomic_write(path) as handle:
        json.dump(value, handle, indent=1, ensure_ascii=False, allow_nan=False)
        handle.write("\n")


def read_json(path: Path) -> Any:
    """Raises WorkError with the remedy for what is not JSON, and FileNotFoundError for no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise WorkError(f"{path}: not valid JSON ({error}); delete it and run the stage again") from error


def unreadable(error: ValueError | RecursionError) -> str:
    """Why a text is no JSON that can be used: broken, nested too deep, or a number of thousands of digits."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "too deep" if isinstance(error, RecursionError) else str(error).partition(";")[0]


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield (line number, parsed object) and, for a line that is no JSON object, (line number, what is wrong)."""
    with open(path, encoding="utf-8", errors="replace") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, f"invalid JSON ({unreadable(error)})"
                continue
            yield number, row if isinstance(row, dict) else f"a JSON object is needed, not {type(row).__name__}"


def read_records(path: Path, cls: type[R]) -> list[R]:
    """Read a finished stage file. Any bad row is an error: our own stages wrote it."""
    if not path.exists():
        raise WorkError(f"{path} is missing; run the stage that writes it first")
    rows = []
    for number, row in read_lines(path):
        if isinstance(row, str):
            raise WorkError(f"{path}:{number}: {row}; delete the file and run its stage again")
        try:
            rows.append(cls.from_dict(row))
        except (ValueError, TypeError) as error:
            raise WorkError(f"{path}:{number}: {error}; delete the file and run its stage again") from error
    return rows


def write_records(path: Path, records: Iterable[_Record]) -> int:
    """Write records atomically; returns how many."""
    count = 0
    with atomic_write(path) as handle:
        for record in records:
            handle.write(record.to_json() + "\n")
            count += 1
    return count


class Ledger(Generic[R]):
    """The output file of one stage while it is being made: append by key, resume after a crash, finish atomically.

    Rows go to `<path>.part`, flushed to the disk at every `append`. Opening again keeps every whole row and cuts a torn
    last line. `finish(order)` writes the rows in the given order to `path` and removes the part file.
    """

    def __init__(self, path: Path, cls: type[R]):
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self.cls = cls
        self.rows: dict[tuple[Any, ...], R] = {}
        self.finished = path.exists()
        if self.finished:
            self.rows = {r.key(): r for r in read_records(path, cls)}
        elif self.part.exists():
            self._recover()

    def _recover(self) -> None:
        whole = 0
        with open(self.part, "rb") as handle:
            for line in handle:
                if not line.endswith(b"\n"):
                    break  # torn by a crash
                try:
                    row = self.cls.from_json(line.decode())
                except (ValueError, TypeError) as error:
                    raise WorkError(f"{self.part}: a damaged row ({error}); delete the file and run again") from error
                self.rows[row.key()] = row
                whole += len(line)
        os.truncate(self.part, whole)

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return key in self.rows

    def append(self, records: Sequence[R]) -> None:
        """Add rows; a key already present is an error, because it means that work was done twice."""
        if not records:
            return
        for record in records:
            if record.key() in self.rows:
                raise WorkError(f"{self.part}: duplicate row {record.key()}")
        self.part.parent.mkdir(parents=True, exist_ok=True)
        with open(self.part, "a", encoding="utf-8") as handle:
            handle.write("".join(r.to_json() + "\n" for r in records))
            handle.flush()
            os.fsync(handle.fileno())
        self.rows.update({r.key(): r for r in records})

    def finish(self, order: Callable[[R], Any] | None = None) -> list[R]:
        """Write the finished file (sorted by `order` if given) and return its rows."""
        rows = sorted(self.rows.values(), key=order) if order else list(self.rows.values())
        write_records(self.path, rows)
        self.part.unlink(missing_ok=True)
        self.finished = True
        return rows
