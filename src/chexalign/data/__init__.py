"""Sources: name → function(settings, seed, folder, drops) yielding studies. A new one is a file and an entry in registry.py."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from chexalign.data.drops import Drops
from chexalign.data.paths import image_folder
from chexalign.data.registry import (
    SOURCES,
    Source,
    SourceEntry,
    check_sources,
    is_drawn,
    labels_alone,
    load_source,
    may_lack_images,
    source_entry,
)
from chexalign.errors import WorkError
from chexalign.records import Study

__all__ = [
    "SOURCES",
    "Drops",
    "Source",
    "SourceEntry",
    "check_leakage",
    "check_sources",
    "image_folder",
    "is_drawn",
    "labels_alone",
    "load_source",
    "may_lack_images",
    "source_entry",
    "split_by_patient",
    "unit_hash",
]


def unit_hash(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone: stable over machines, processes and Python versions."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split_by_patient(seed: int, val_share: float, test_share: float) -> Callable[[str], str]:
    """patient_id → split. Each patient's place depends on the seed and the id only, never on who else is there."""

    def split_of(patient_id: str) -> str:
        u = unit_hash("split", seed, patient_id)
        return "test" if u < test_share else "val" if u < test_share + val_share else "train"

    return split_of


def check_leakage(studies: list[Study]) -> None:
    """Raise WorkError if a patient is in two splits: an evaluation on a patient the model saw proves nothing."""
    seen: dict[str, tuple[str, str]] = {}
    for study in studies:
        split, first = seen.setdefault(study.patient_id, (study.split, study.study_id))
        if split != study.split:
            raise WorkError(
                f"patient {study.patient_id} is in two splits ({first}: {split}, {study.study_id}: {study.split}); "
                "put all studies of a patient in one split, or leave `split` out to let chexalign do it"
            )
