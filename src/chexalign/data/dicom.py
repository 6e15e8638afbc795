"""Source `dicom`: a folder of DICOM files as an archive exports it → studies, told by content and grouped by study.

Names, numbers and folder names of patients stay where they are: ids are keyed hashes, images are written to the run folder
under those, and messages name a file by its number in the sorted list, for its path could hold a name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from os import fsencode
from pathlib import Path
from typing import Any

from chexalign.data.decode import is_dicom
from chexalign.data.dicom_header import number, text, view_of
from chexalign.data.dicom_pixels import parse
from chexalign.data.dicom_text import TEXTS, Texts, read_texts
from chexalign.data.drops import Drops
from chexalign.data.identity import Hashed, hasher
from chexalign.data.image_errors import ImageError
from chexalign.data.images import failures_told
from chexalign.data.splits import by_patient, known_split
from chexalign.errors import RecipeError
from chexalign.progress import progress
from chexalign.recipe.studies import Studies
from chexalign.records import Study

BURNT_IN = "burnt-in annotation"
HEAD = 132  # bytes that tell DICOM from all else
NOT_IMAGES = ("PR", "SR", "KO", "DOC", "REG", "SEG", "AU", "PLAN")  # modalities without an image of their own
FIND = (
    "in studies.root: find . -type f | LC_ALL=C sort | sed -n {}p"  # names may be patients': a number says which file
)
RADIOGRAPHS = ("CR", "DX", "RG", "XR", "DR", "RF", "SC", "OT", "XA", "")  # SC and OT are warned of; "": not said


@dataclass(frozen=True)
class Film:
    """One image file by its header; `path` relative to the root."""

    path: str
    study: str  # StudyInstanceUID
    patient: str
    accession: str
    view: str
    order: tuple[float, float, float, str]  # acquisition time, series, instance, path: the first is kept
    place: str  # "file N", its number among the files of the root
    view_from: str  # the element that told the view


@dataclass
class Found:
    """The films of a folder by study, and how many files were passed by for which reason."""

    films: dict[str, list[Film]] = field(default_factory=dict)
    passed: Counter[str] = field(default_factory=Counter)


def dicom(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """`root` is a folder of DICOM files, however named and nested; `reports` a table with a row per study.

    A study has one image per view, the first acquired. Raises RecipeError where `root` is no folder.
    """
    root = settings.root
    if root is None or not root.is_dir():
        raise RecipeError(f"studies.root {root} is no folder; name the folder of the DICOM files (studies.root=DIR)")
    hashed = hasher(settings.dicom.key_file)
    found = find_films(root, settings.dicom.burned_in == "drop", drops)
    for reason, n in found.passed.most_common():
        drops.note(f"files passed by: {reason}", n)
    texts, split_of = read_texts(settings, drops), by_patient(settings, seed)
    for uid in sorted(found.films, key=hashed):
        films = _one_per_view(found.films[uid], drops)
        drops.places[hashed(uid)] = ", ".join(film.place for film in films)
        for film in films:
            if film.view_from == "PatientOrientation":
                drops.note("views read from PatientOrientation alone")
        try:
            yield _study(uid, films, texts, hashed, split_of, settings)
        except ValueError as error:
            drops.add("bad row", f"{drops.where(hashed(uid))}: {error}; fix its row of studies.reports")
    if texts.rows and texts.unused:
        drops.note("rows of studies.reports without a DICOM study", texts.unused)


def _study(
    uid: str, films: list[Film], texts: Texts, hashed: Hashed, split_of: Callable[[str], str], settings: Studies
) -> Study:
    """One study with its row's texts and split. Raises ValueError for a split that is none."""
    first = films[0]
    row = texts.of(uid, first.accession)
    patient = hashed(first.patient) if first.patient else hashed(uid)
    sections: dict[str, Any] = {name: row.get(name, "") for name in TEXTS}
    split = known_split(row["split"], settings.split_names) if row.get("split") else split_of(patient)
    return Study(
        study_id=hashed(uid),
        patient_id=patient,
        split=split,
        images=tuple((film.path, film.view) for film in films),
        source="dicom",
        **sections,
    )


def find_films(root: Path, without_burned_in: bool, drops: Drops) -> Found:
    """Every radiograph below `root` by its header. A file that cannot be read as one is dropped or passed by, counted."""
    found, seen = Found(), set()
    files = sorted((p for p in root.rglob("*") if p.is_file() and not p.is_symlink()), key=fsencode)
    with progress("reading DICOM headers", len(files), "files") as ticker:
        for n, path in enumerate(files, start=1):
            ticker.advance()
            where = f"file {n} ({FIND.format(n)})"
            try:
                header = _header(path)
            except ImageError as error:
                drops.add("unreadable DICOM", f"{where} {error.said}")
                continue
            if reason := _passed_by(header, path.name):
                found.passed[reason] += 1
            elif lost := _lost(header, without_burned_in):
                drops.add(lost[0], f"{where} {lost[1]}", asked=lost[0] == BURNT_IN)
            elif (instance := text(header, "SOPInstanceUID")) and instance in seen:
                found.passed["the same image a second time"] += 1
            else:
                seen.add(instance)
                film = _film(header, path.relative_to(root).as_posix(), f"file {n}")
                found.films.setdefault(film.study, []).append(film)
    return found


def _header(path: Path) -> Any:
    """The header without pixels; None for a file that is not DICOM by its content. Raises ImageError for a broken one."""
    with failures_told(path.name), open(path, "rb") as handle:
        if not is_dicom(handle.read(HEAD), path.name):
            return None
        handle.seek(0)
        return parse(handle, pixels=False)


def _passed_by(header: Any, name: str) -> str:
    """Why a file is no radiograph; "" where it is one."""
    if header is None:
        return "not DICOM"
    modality = text(header, "Modality").upper()
    if "DirectoryRecordSequence" in header or name.upper() == "DICOMDIR":
        return "DICOMDIR, an index"
    if modality in NOT_IMAGES or "EncapsulatedDocument" in header:
        return f"modality {modality or 'not said'}: no image"
    if modality not in RADIOGRAPHS:
        return f"modality {modality}: no radiograph"
    return ""


def _film(header: Any, relative: str, place: str) -> Film:
    view, where = view_of(header)
    last = float("inf")
    times = (number(header, k) for k in ("AcquisitionTime", "ContentTime", "SeriesNumber", "InstanceNumber"))
    acquired, content, series, instance = (last if n is None else n for n in times)
    return Film(
        path=relative,
        study=text(header, "StudyInstanceUID"),
        patient=text(header, "PatientID"),
        accession=text(header, "AccessionNumber"),
        view=view,
        order=(min(acquired, content), series, instance, relative),
        place=place,
        view_from=where,
    )


def _lost(header: Any, without_burned_in: bool) -> tuple[str, str] | None:
    """(reason, what to say) where a film must not be used."""
    if not text(header, "StudyInstanceUID"):
        return "no study", "has no StudyInstanceUID; export it again"
    if text(header, "PresentationIntentType").upper() == "FOR PROCESSING":
        return "for processing", "is FOR PROCESSING, the detector's raw data; export the image FOR PRESENTATION"
    if (frames := number(header, "NumberOfFrames") or 1) > 1:
        return (
            "several frames",
            f"holds {frames:.0f} frames, and which one is meant is not known; export that one alone",
        )
    if without_burned_in and text(header, "BurnedInAnnotation").upper() == "YES":
        return BURNT_IN, "has BurnedInAnnotation YES, and studies.dicom.burned_in is drop"
    return None


def _one_per_view(films: list[Film], drops: Drops) -> list[Film]:
    """The first film of each view, frontal first; of those with no known view every one."""
    kept: list[Film] = []
    for film in sorted(films, key=lambda f: f.order):
        if film.view in ("frontal", "lateral") and any(k.view == film.view for k in kept):
            drops.note("second films of a view in a study: the first acquired was kept")
            continue
        kept.append(film)
    return kept
