"""Where a checkpoint is found: a folder, or what the hub's cache holds."""

from __future__ import annotations

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from chexalign.errors import RecipeError


def downloaded_before(name: str) -> str:
    try:
        return snapshot_download(name, local_files_only=True)
    except LocalEntryNotFoundError as error:
        raise RecipeError(
            f"policy.model {name!r} is not on this machine: give a checkpoint folder, or set policy.download=true to fetch "
            "the hub id"
        ) from error
