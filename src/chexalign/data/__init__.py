"""Sources: name → function(settings, seed, folder, drops) yielding studies. A new source is one file and one entry here."""

from __future__ import annotations

import difflib
import hashlib
import importlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chexalign.errors import RecipeError, WorkError
from chexalign.recipe.recipe import Studies
from chexalign.records import Study


@dataclass(frozen=True)
class SourceEntry:
    """How a source is reached, and what the rest of the house must know about it: nobody asks for a source by name."""

    where: str  # module:function
    description: str
    has_images: bool = True  # False: texts alone, so that a study without an image is no fault
    brings_splits: bool = False  # True: its rows may name their split; the others are split by patient
    is_drawn: bool = False  # True: a program draws any number of studies, and their images into the run folder


SOURCES = {
    "phantom": SourceEntry(
        "chexalign.data.sources:phantom",
        "drawn radiographs with known findings and grammar-written reports",
        is_drawn=True,
    ),
    "openi": SourceEntry(
        "chexalign.data.sources:openi",
        "3,955 real reports in the torchxrayvision wheel, no images",
        has_images=False,
    ),
    "iu_xray": SourceEntry(
        "chexalign.data.sources:iu_xray",
        "a folder with studies.jsonl and images/ (IU X-ray layout)",
    ),
    "jsonl": SourceEntry(
        "chexalign.data.sources:jsonl",
        "your own studies: one JSON object per line, images beside it",
        brings_splits=True,
    ),
}


@dataclass
class Drops:
    """Rows that could not be used: one line each with file, row and remedy, and a count per reason."""

    lines: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, line: str) -> None:
        self.reasons[reason] += 1
        self.lines.append(line)


Source = Callable[[Studies, int, Path, Drops], Iterator[Study]]


def source_entry(name: str) -> SourceEntry:
    """What is known of the source called `name`. Raises RecipeError naming the nearest one."""
    if name not in SOURCES:
        close = difflib.get_close_matches(name, SOURCES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(SOURCES)}"
        raise RecipeError(f"studies.source: no source {name!r}; {hint}")
    return SOURCES[name]


def load_source(name: str) -> Source:
    """The function of the source called `name`. Raises RecipeError naming the nearest one."""
    module, _, function = source_entry(name).where.partition(":")
    return getattr(importlib.import_module(module), function)


def image_folder(settings: Studies, run_folder: Path) -> Path:
    """The folder that a source's image paths are relative to: `studies.root` (or the folder of that file), or the run's."""
    if source_entry(settings.source).is_drawn or settings.root is None:
        return run_folder
    return settings.root.parent if settings.root.is_file() else settings.root


def may_lack_images(study: Study) -> bool:
    """True for a study of a source of texts alone; a source that is not ours (a row's own `source`) is held to have images."""
    return study.source in SOURCES and not SOURCES[study.source].has_images


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
