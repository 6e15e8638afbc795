"""Ids of patients and studies → keyed hashes: the same key gives the same ids, without it nobody can try numbers out."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from chexalign.errors import RecipeError
from chexalign.progress import say

SHORTEST = 16  # bytes of a key
Hashed = Callable[[str], str]


def hasher(key_file: Path | None = None) -> Hashed:
    """text → 16 hexadecimal digits by BLAKE2b with the key of `key_file`; without one, with this user's own.

    The user's own key is drawn once and kept in $XDG_CONFIG_HOME/chexalign/id.key (~/.config), readable by its owner alone.
    Raises RecipeError where the file cannot be read or is too short to be a secret.
    """
    path = _own_key() if key_file is None else key_file
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise RecipeError(f"studies.dicom.key_file {path} cannot be read ({error.strerror})") from error
    if len(key) < SHORTEST:
        raise RecipeError(
            f"{path} holds {len(key)} bytes; a key has {SHORTEST} or more: `openssl rand -hex 32 > {path}`"
        )
    secret = hashlib.blake2b(key).digest()
    return lambda text: hashlib.blake2b(text.encode(), key=secret, digest_size=8).hexdigest()


def _own_key() -> Path:
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    path = home / "chexalign" / "id.key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        say(f"drew a key for hashed ids: {path}; keep it, or other runs will have other ids")
    return path
