"""The weights a judge scores with: where they lie, and what names them in its version (files by content, hub ids by name)."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

EDGE = 1 << 20  # bytes read at each end of a large file; weights trained apart differ there # our choice
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")


def fingerprint(model: str | Path) -> str:
    """Eight hex digits of a local file, or of the weights and settings in a local folder; a hub id as it is."""
    path = Path(model)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix in (*WEIGHTS, ".json", ".txt", ".model"))
    elif path.is_file():
        files = [path]
    else:
        return str(model)
    return _digest(tuple((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in files))


@functools.lru_cache(maxsize=256)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.blake2b(digest_size=4)
    for name, _, size in files:
        digest.update(f"{Path(name).name} {size}".encode())
        with open(name, "rb") as handle:
            digest.update(handle.read(EDGE))
            handle.seek(max(0, size - EDGE))
            digest.update(handle.read(EDGE))
    return digest.hexdigest()


def local_folder(model: str) -> str:
    """The folder of a model that is on this machine; raises OSError or ValueError when it is not.

    Asks no network: the Auto classes of transformers 5 do, even when told `local_files_only`.
    """
    from huggingface_hub import snapshot_download

    return model if Path(model).is_dir() else snapshot_download(model, local_files_only=True)
