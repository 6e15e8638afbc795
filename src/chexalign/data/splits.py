"""Split names of many archives → train, val, test; and whose split a study gets where a source brings none."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chexalign.data import split_by_patient
from chexalign.recipe.studies import Studies

NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def known_split(name: str, own: Mapping[str, str] | None = None) -> str:
    """The split that a name means. Raises ValueError naming the remedy."""
    plain = name.strip().lower()
    for word, split in (own or {}).items():
        if word.strip().lower() == plain:
            return split
    if plain not in NAMES:
        raise ValueError(f"split {name!r} is not one of train, val, test; say what it means: studies.split_names")
    return NAMES[plain]


def is_known(name: object, own: Mapping[str, str] | None = None) -> bool:
    """Whether a cell names a split."""
    plain = name.strip().lower() if isinstance(name, str) else ""
    return plain in NAMES or plain in {word.strip().lower() for word in own or {}}


def by_patient(settings: Studies, seed: int) -> Callable[[str], str]:
    """patient_id → split, by the recipe's shares."""
    return split_by_patient(seed, settings.val_share, settings.test_share)


def val_of_train(settings: Studies, seed: int) -> Callable[[str], str]:
    """patient_id → train or val, for a source that brings a test split and no validation."""
    return split_by_patient(seed, settings.val_share, 0.0)
