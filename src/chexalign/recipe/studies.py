"""The recipe's section `studies`: which sources are read, from where, and which studies of them are used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from chexalign.recipe.base import Count, Section, Share

Text = Literal["indication", "comparison", "findings", "impression"]
PRESETS: dict[str, dict[str, Any]] = {  # whose studies of MIMIC-CXR: what is counted, and which views
    "chexagent": {"unit": "study"},
    "llava_rad": {"unit": "image", "views": ("frontal",)},
    "maira": {"unit": "image", "views": ("frontal",)},
    "r2gen": {"unit": "image"},
}


class Columns(Section):
    """Which columns of a table hold what. Several columns are joined; `images` may also hold a list in one cell."""

    study_id: str | tuple[str, ...] = "study_id"
    patient_id: str | tuple[str, ...] = "patient_id"
    split: str = "split"
    images: str | tuple[str, ...] = "images"
    views: str | tuple[str, ...] = "views"
    indication: str | tuple[str, ...] = "indication"
    comparison: str | tuple[str, ...] = "comparison"
    findings: str | tuple[str, ...] = "findings"
    impression: str | tuple[str, ...] = "impression"


class Dicom(Section):
    """How source `dicom` treats what the headers leave open."""

    key_file: Path | None = None  # the secret that ids are hashed with; this user's own when absent
    burned_in: Literal["keep", "drop"] = "keep"  # images with BurnedInAnnotation YES
    inverse_shape: Literal["follow", "ignore"] = "follow"  # PresentationLUTShape INVERSE on a MONOCHROME2 image


class SourceSettings(Section):
    """One source: its name, where its files are, how they are read."""

    source: str | None = None  # a name from chexalign.data.SOURCES
    root: Path | None = None  # the source's folder or file (docs/use/data.md)
    image_root: Path | None = None  # the folder that image paths are relative to; the folder of `root` when absent
    reports: Path | None = None  # mimic_cxr: the reports, as a folder, a zip or a table of sections
    sections: Literal["mit", "repaired"] = "mit"  # mimic_cxr: MIT-LCP's sections, or with its losses mended
    blank_views: Literal["unknown", "procedure"] = "unknown"  # mimic_cxr: a portable AP procedure says frontal
    preset: Literal["chexagent", "llava_rad", "maira", "r2gen"] | None = None  # mimic_cxr: whose studies
    unit: Literal["study", "image"] = "study"  # what a row is: a study, or one image of it
    generated_by: str = "rule-based"  # llava_rad: which of an image's two texts (`generate_method`)
    split_by: Literal["source", "patient", "r2gen"] = "source"  # the source's own split, ours by patient, R2Gen's
    encoding: str | None = None  # csv, jsonl: of the text; recognised when absent
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None  # csv: recognised when absent
    list_separator: str = "|"  # csv: between several images, or views, in one cell
    columns: Columns = Columns()  # csv, and the reports of dicom
    equalise: bool = False  # dicom: histogram equalisation, as MIMIC-CXR-JPG's images have it
    dicom: Dicom = Dicom()
    view_names: dict[str, str] = {}  # your word for a view → frontal, lateral, other or unknown
    split_names: dict[str, Literal["train", "val", "test"]] = {}  # your word for a split → ours


class Studies(SourceSettings):
    """Where the studies come from and how they are split. Splits are by patient."""

    sources: tuple[SourceSettings, ...] = ()  # several, in place of `source`; ids get the source's name in front
    n: Count | None = None  # how many studies to take, after a seeded shuffle of patients; all when absent
    val_share: Share = 0.1  # share of patients; only where the source brings no split of its own
    test_share: Share = 0.1
    views: tuple[str, ...] = ("frontal", "lateral", "other", "unknown")  # those kept, in the order they are shown
    max_images: Annotated[int, Field(ge=0)] = 2
    image_size: Annotated[int, Field(ge=32, le=4096)] = 96  # pixels; phantom only: smaller ones hold no nodule
    masks: Literal["keep", "remove"] = "keep"  # XXXX or ___, where a word was taken out of a report (data/masks.py)
    report_clean: Literal["chexagent"] | None = None  # drop what speaks of an earlier image (data/clean.py)
    require: tuple[Text, ...] = ()  # sections without which a study is dropped, beside those that the task needs
    check_images: bool = True  # decode every image once, so that a broken file is found now and not at midnight

    @model_validator(mode="before")
    @classmethod
    def _of_preset(cls, value: Any) -> Any:
        """A preset sets what is counted and which views; a recipe that says otherwise contradicts its counts."""
        if not isinstance(value, dict) or value.get("preset") not in PRESETS:
            return value
        fixed = PRESETS[value["preset"]]
        for key, given in value.items():
            if key in fixed and (tuple(given) if isinstance(given, list) else given) != fixed[key]:
                raise ValueError(f"preset {value['preset']} means {key} {fixed[key]!r}; remove {key} or the preset")
        return {**value, **fixed}

    @model_validator(mode="after")
    def _one_way(self) -> Studies:
        if (self.source is None) == (not self.sources):
            raise ValueError("give `source`, or several under `sources`")
        if any(s.source is None for s in self.sources):
            raise ValueError("sources: every entry needs its `source`")
        if any(s.preset for s in self.sources):
            raise ValueError("sources: a preset counts one source; use it with `source`")
        return self

    def parts(self) -> list[Studies]:
        """One settings object per source; what an entry of `sources` leaves out is taken from here."""
        if not self.sources:
            return [self]
        return [
            self.model_copy(update={**s.model_dump(exclude_unset=True), "columns": s.columns, "sources": ()})
            for s in self.sources
        ]
