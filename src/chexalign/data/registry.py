"""The sources by name: how each is reached, and what the rest of the house must know about it."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chexalign.data.drops import Drops
from chexalign.data.views import chosen
from chexalign.errors import RecipeError
from chexalign.recipe.studies import SourceSettings, Studies
from chexalign.records import Study


@dataclass(frozen=True)
class SourceEntry:
    """How a source is reached, and what the rest of the house must know about it: nobody asks for a source by name."""

    where: str  # module:function
    description: str
    has_images: bool = True  # False: texts alone, so that a study without an image is no fault
    has_reports: bool = True  # False: images and labels, so that nothing can be written about them
    brings_splits: bool = False  # True: its rows may name their split; the others are split by patient
    is_drawn: bool = False  # True: a program draws any number of studies, and their images into the run folder
    writes_images: bool = False  # True: its images are written to the run folder in 8 bits, under the studies' ids
    shows_paths: bool = True  # False: a user's own files, whose names may be patients': no message names them
    some_reports: str | None = None  # module:function, n → reports that need no folder, for `scorecard --reports`
    reads: tuple[str, ...] = ()  # settings that this source reads and not every one does


OWN = ("image_root", "encoding", "split_names")
IMAGES = ("image_root",)
SOURCES = {
    "phantom": SourceEntry(
        "chexalign.data.sources.phantom:phantom",
        "drawn radiographs with known findings and grammar-written reports",
        is_drawn=True,
        some_reports="chexalign.data.sources.phantom:some_reports",
    ),
    "openi": SourceEntry(
        "chexalign.data.sources.openi:openi",
        "3,955 real reports in the torchxrayvision wheel, or OpenI's folder of XML files",
        has_images=False,
        some_reports="chexalign.data.sources.openi:some_reports",
    ),
    "iu_xray": SourceEntry(
        "chexalign.data.sources.iu_xray:iu_xray",
        "IU X-ray: studies.jsonl, Kaggle's tables, R2Gen's annotation.json, or OpenI's XML and PNG files",
        reads=("unit",),
    ),
    "mimic_cxr": SourceEntry(
        "chexalign.data.mimic.source:mimic_cxr",
        "MIMIC-CXR-JPG with the reports of MIMIC-CXR (studies.reports)",
        brings_splits=True,
        reads=("image_root", "reports", "sections", "blank_views", "preset", "unit"),
    ),
    "r2gen": SourceEntry(
        "chexalign.data.sources.r2gen:r2gen",
        "R2Gen's annotation.json and images/, of MIMIC-CXR or IU X-ray",
        brings_splits=True,
        reads=("image_root", "unit"),
    ),
    "llava_rad": SourceEntry(
        "chexalign.data.sources.llava_rad:llava_rad",
        "LLaVA-Rad's chat_*.json on MIMIC-CXR-JPG's images (studies.image_root)",
        brings_splits=True,
        reads=("image_root", "unit", "generated_by"),
    ),
    "chexpert_plus": SourceEntry(
        "chexalign.data.sources.chexpert_plus:chexpert_plus",
        "CheXpert Plus: df_chexpert_plus_240401.csv and PNG/",
        brings_splits=True,
        reads=IMAGES,
    ),
    "rexrank": SourceEntry(
        "chexalign.data.sources.rexrank:rexrank",
        "a test set of ReXrank: its JSON and images/",
        brings_splits=True,
        reads=IMAGES,
    ),
    "rexgradient": SourceEntry(
        "chexalign.data.sources.rexgradient:rexgradient",
        "ReXGradient-160K: metadata/ and deid_png/",
        brings_splits=True,
        reads=IMAGES,
    ),
    "padchest": SourceEntry(
        "chexalign.data.sources.padchest:padchest", "PadChest: Spanish reports, labels and images", reads=IMAGES
    ),
    "brax": SourceEntry(
        "chexalign.data.sources.labelled:brax",
        "BRAX: images with labels, no reports",
        has_reports=False,
        reads=IMAGES,
    ),
    "nih": SourceEntry(
        "chexalign.data.sources.labelled:nih",
        "NIH ChestX-ray14: images with labels, no reports",
        has_reports=False,
        brings_splits=True,
        reads=IMAGES,
    ),
    "vindr": SourceEntry(
        "chexalign.data.sources.labelled:vindr",
        "VinDr-CXR: images with three readers' labels, no reports",
        has_reports=False,
        brings_splits=True,
        reads=IMAGES,
    ),
    "jsonl": SourceEntry(
        "chexalign.data.sources.jsonl:jsonl",
        "your own studies: one JSON object per line, images beside it",
        brings_splits=True,
        shows_paths=False,
        reads=OWN,
    ),
    "dicom": SourceEntry(
        "chexalign.data.dicom:dicom",
        "a folder of DICOM files, however named, with a table of reports (studies.reports)",
        brings_splits=True,
        writes_images=True,
        shows_paths=False,
        reads=("reports", "columns", "encoding", "delimiter", "split_names", "equalise", "dicom"),
    ),
    "csv": SourceEntry(
        "chexalign.data.sources.table:csv",
        "your own table, in any dialect and encoding; studies.columns names its columns",
        brings_splits=True,
        shows_paths=False,
        reads=(*OWN, "columns", "delimiter", "list_separator"),
    ),
}
EVERY = ("source", "root", "split_by", "view_names")  # settings that every source reads

Source = Callable[[Studies, int, Path, Drops], Iterator[Study]]


def source_entry(name: str | None) -> SourceEntry:
    """What is known of the source called `name`. Raises RecipeError naming the nearest one."""
    if name not in SOURCES:
        close = difflib.get_close_matches(name or "", SOURCES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(SOURCES)}"
        raise RecipeError(f"studies.source: no source {name!r}; {hint}")
    return SOURCES[name]


def load_source(name: str | None) -> Source:
    """The function of the source called `name`: its studies with the images of the wanted views, in the wanted order.

    Raises RecipeError naming the nearest source.
    """
    read: Source = _function(source_entry(name).where)

    def read_wanted(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
        for study in read(settings, seed, folder, drops):
            images = chosen(study.images, settings.views, settings.view_names)
            yield study if images == study.images else replace(study, images=images)

    return read_wanted


def some_reports(name: str, n: int) -> list[str] | None:
    """The reports that source `name` has without a folder, n or more if there are; None where it has none, or is not known."""
    entry = SOURCES.get(name)
    return list(_function(entry.some_reports)(n)) if entry and entry.some_reports else None


def with_some_reports() -> list[str]:
    """The names of the sources that have reports without a folder, sorted."""
    return sorted(name for name, entry in SOURCES.items() if entry.some_reports)


def _function(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def check_sources(settings: Studies) -> None:
    """Raise RecipeError for a source that is not there, and for a setting that its source does not read."""
    for part in settings.parts():
        entry = source_entry(part.source)
        for key, info in SourceSettings.model_fields.items():
            if key in (*EVERY, *entry.reads) or getattr(part, key) == info.get_default(call_default_factory=True):
                continue
            readers = [n for n, e in SOURCES.items() if key in e.reads]
            raise RecipeError(
                f"studies.{key} is not read by source {part.source}, but by {', '.join(readers)}; remove it"
            )
        if settings.sources and entry.writes_images:
            raise RecipeError(f"studies.sources: {part.source} writes its images to the run folder; run it alone")
        if part.split_by == "r2gen" and part.source not in R2GEN:
            raise RecipeError(f"studies.split_by is r2gen: R2Gen splits {', '.join(R2GEN)}; source is {part.source}")


R2GEN = ("iu_xray",)


def is_drawn(settings: Studies) -> bool:
    """Whether a program draws the studies, as many as are asked for."""
    return not settings.sources and source_entry(settings.source).is_drawn


def labels_alone(study: Study) -> bool:
    """True for a study of a source without reports that is not of the test: it can teach the tower, and nothing else."""
    return study.source in SOURCES and not SOURCES[study.source].has_reports and study.split != "test"


def may_lack_images(study: Study) -> bool:
    """True for a study of a source of texts alone; a source that is not ours (a row's own `source`) is held to have images."""
    return study.source in SOURCES and not SOURCES[study.source].has_images
