"""What costly judges found, kept on disk: one SQLite file per judge, keyed by content, shared by many processes.

A key is a sha256 of the judge's version and the texts, a value is features or a score: no text is stored in clear (features
such as embeddings still tell something about a text: treat the folder as patient data). A damaged file or value is dropped,
and that is said. Off unless a judge's option `cache` names a folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chexalign.errors import Abstain, WorkError
from chexalign.judges.contract import Judgement

if TYPE_CHECKING:
    import numpy as np

BUSY_SECONDS = 60.0  # how long a writer waits for another one
ASK_AT_ONCE = 500  # keys in one query


def key(version: str, *texts: str) -> str:
    """Content address of texts as one judge version sees them; the order of texts counts."""
    digest = hashlib.sha256()
    for part in (version, *texts):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


class Store:
    """Bytes by key in one SQLite file; each value carries its CRC. Every call opens the file anew, so it survives forks."""

    def __init__(self, path: Path, say: Callable[[str], None]):
        self.path = path
        self.say = say
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkError(f"judge cache {path.parent}: {error.strerror}; choose another folder") from error

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        connection.execute(
            "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, crc INTEGER, value BLOB) WITHOUT ROWID"
        )
        return connection

    def _do(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run `work`; a damaged file is put aside and a new one begun. Other database errors are one clear line."""
        for attempt in (1, 2):
            try:
                with closing(self._open()) as connection:
                    return work(connection)
            except sqlite3.OperationalError as error:
                raise WorkError(
                    f"judge cache {self.path}: {error}; choose another folder or remove the file"
                ) from error
            except sqlite3.DatabaseError as error:
                if attempt == 2:
                    raise WorkError(f"judge cache {self.path}: {error}; remove the file") from error
                aside = self.path.with_name(f"{self.path.name}.damaged-{os.getpid()}-{time.time_ns()}")
                with suppress(FileNotFoundError):  # another process was quicker
                    self.path.rename(aside)
                self.say(
                    f"judge cache {self.path} is damaged ({error}); moved to {aside.name}, its entries are made again"
                )

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The values there are. A value whose CRC does not fit is left out, and made again by who asked."""
        wanted = list(dict.fromkeys(keys))

        def work(connection: sqlite3.Connection) -> list[tuple[str, int, bytes]]:
            rows = []
            for start in range(0, len(wanted), ASK_AT_ONCE):
                part = wanted[start : start + ASK_AT_ONCE]
                marks = ",".join("?" * len(part))
                rows += connection.execute(
                    f"SELECT key, crc, value FROM entries WHERE key IN ({marks})", part
                ).fetchall()
            return rows

        rows = self._do(work) if wanted else []
        good = {k: value for k, crc, value in rows if isinstance(value, bytes) and zlib.crc32(value) == crc}
        if len(good) < len(rows):
            self.say(f"judge cache {self.path}: {len(rows) - len(good)} damaged entries dropped")
        return good

    def put_many(self, values: Mapping[str, bytes]) -> None:
        """Add or replace values in one transaction: all of them or, after a crash, none."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            rows = [(k, zlib.crc32(v), v) for k, v in values.items()]
            connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")

        if values:
            self._do(work)


def open_store(folder: str | Path | None, name: str, say: Callable[[str], None] | None = None) -> Store | None:
    """The store of judge `name` in `folder`, or None when no folder is given. `say` gets the news, stderr by default."""
    if folder is None:
        return None
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return Store(Path(folder).expanduser() / f"{safe}.sqlite", say or _say)


def _say(line: str) -> None:
    import sys

    print(line, file=sys.stderr)


def pack_json(value: Any) -> bytes:
    """For small answers. Raises ValueError for NaN and infinity, which must not reach the disk."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def unpack_json(raw: bytes) -> Any:
    """The other way of `pack_json`; tuples come back as lists."""
    return json.loads(raw)


def pack_array(array: np.ndarray) -> bytes:
    """For embeddings: shape and dtype are kept (NumPy's .npy), objects are refused with ValueError."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def unpack_array(raw: bytes) -> np.ndarray:
    """The other way of `pack_array`; never unpickles."""
    import numpy as np

    return np.load(io.BytesIO(raw), allow_pickle=False)


Encoder = Callable[[Sequence[str]], Sequence[Any]]


def remembered(
    store: Store | None,
    version: str,
    encode_many: Encoder,
    pack: Callable[[Any], bytes] = pack_json,
    unpack: Callable[[bytes], Any] = unpack_json,
) -> Encoder:
    """`encode_many` with the disk behind it: texts found there are not encoded; an Abstain is never stored."""
    if store is None:
        return encode_many

    def encode(texts: Sequence[str]) -> list[Any]:
        keys = [key(version, t) for t in texts]
        found = {k: unpack(raw) for k, raw in store.get_many(keys).items()}
        missing = [i for i, k in enumerate(keys) if k not in found]
        new = dict(
            zip([keys[i] for i in missing], encode_many([texts[i] for i in missing]) if missing else [], strict=True)
        )
        store.put_many({k: pack(v) for k, v in new.items() if not isinstance(v, Abstain)})
        found |= new
        return [found[k] for k in keys]

    return encode


Ask = Callable[[Sequence[str], Sequence[str]], Sequence[Judgement]]


def cached_scores(
    store: Store | None, version: str, reports: Sequence[str], references: Sequence[str], ask: Ask
) -> list[Judgement]:
    """Judgements of pairs: equal pairs are asked once, pairs on disk not at all; abstentions are never stored."""
    pairs = list(zip(reports, references, strict=True))
    keys = [key(version, *pair) for pair in pairs]
    stored = store.get_many(keys) if store else {}
    found = {
        k: Judgement(row["score"], details=row["details"])
        for k, row in ((k, unpack_json(v)) for k, v in stored.items())
    }
    missing = {k: pair for k, pair in zip(keys, pairs, strict=True) if k not in found}
    if missing:
        new = dict(zip(missing, ask(*map(list, zip(*missing.values(), strict=True))), strict=True))
        if store:
            rows = {k: {"score": a.score, "details": a.details} for k, a in new.items() if a.score is not None}
            store.put_many({k: pack_json(row) for k, row in rows.items()})
        found |= new
    return [found[k] for k in keys]
