"""OpenI: 3,955 real chest X-ray reports (Demner-Fushman et al., JAMIA 2016), without images.

They ship inside the torchxrayvision wheel as `data/NLMCXR_reports.tgz`, which is read as a file: the package itself is
never imported (it pulls in torchvision). The reports are CC BY-NC-ND 4.0: read at run time, never stored with the code.
"""

from __future__ import annotations

import tarfile
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from chexalign.data.tables import read_plain
from chexalign.errors import WorkError
from chexalign.records import Study

PACKAGE = "torchxrayvision"
INSIDE = "torchxrayvision/data/NLMCXR_reports.tgz"
REMEDY = "pip install --no-deps torchxrayvision"
SECTIONS = ("INDICATION", "COMPARISON", "FINDINGS", "IMPRESSION")
MAX_BYTES = 1 << 20  # of one report: the longest real one has some 10 kB


def read_openi(archive: Path | None, split_of: Callable[[str], str]) -> Iterator[Study]:
    """Every report of the archive, in its order, those without findings too: the caller filters.

    `archive` None takes the one in the installed wheel; a folder is searched for .xml files. Each
    report is taken as one patient: the set names none. `labels["mesh"]` holds the curators' main headings
    ("Pleural Effusion/left/small").
    """
    path = archive or find_archive()
    if path.is_dir():
        yield from read_folder(path, split_of)
        return
    if not path.is_file():
        raise WorkError(f"{path} does not exist; leave studies.root out and run `{REMEDY}`")
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile() and member.name.endswith(".xml"):
                    yield _study(_read(tar, member), member.name, split_of)[0]
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise WorkError(f"{path} is not a readable archive ({error}); reinstall it: `{REMEDY}`") from error


def read_folder(folder: Path, split_of: Callable[[str], str]) -> Iterator[Study]:
    """The .xml files below a folder as studies, with their images where a folder of OpenI's PNG files is there too.

    A report names its images and not their views: those are Kaggle's, where indiana_projections.csv lies in the folder,
    else unknown (the DICOM files of this set name wrong ones).
    """
    reports = sorted(folder.rglob("*.xml"))
    if not reports:
        raise WorkError(f"{folder} holds no .xml report; give the folder with ecgen-radiology/, or the archive")
    places = {p.stem: p.relative_to(folder).as_posix() for p in sorted(folder.rglob("CXR*.png"))}
    views = _kaggle_views(folder / "indiana_projections.csv")
    for path in reports:
        if path.stat().st_size > MAX_BYTES:
            raise WorkError(f"{path.name} has {path.stat().st_size} bytes: not a report")
        study, images = _study(path.read_bytes(), path.name, split_of)
        if places:
            named = tuple((places[i], views.get(_series(i), "unknown")) for i in images if i in places)
            study = replace(study, images=named, source="iu_xray")
        yield study


def _series(name: str) -> tuple[str, str]:
    """(uid, series and number) of an image: CXR1_1_IM-0001-3001 and Kaggle's 1_IM-0001-3001.dcm.png are one."""
    uid, _, series = name.removeprefix("CXR").partition("IM-")
    return uid.split("_")[0], series.split(".")[0]


def _kaggle_views(path: Path) -> dict[tuple[str, str], str]:
    return (
        {_series(name): view for name, view in read_plain(path, ("filename", "projection"))} if path.is_file() else {}
    )


def find_archive() -> Path:
    """The archive in the installed torchxrayvision, found without importing it."""
    try:
        return Path(str(distribution(PACKAGE).locate_file(INSIDE)))
    except PackageNotFoundError:
        raise WorkError(f"the OpenI reports come with the torchxrayvision wheel: `{REMEDY}`") from None


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_BYTES:
        raise WorkError(f"{member.name} has {member.size} bytes: not a report")
    file = tar.extractfile(member)
    return file.read() if file else b""


class _NoDoctype(ET.TreeBuilder):
    """A report needs no document type; one could define entities that expand without end or read files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise WorkError("it declares a document type")


def _study(xml: bytes, name: str, split_of: Callable[[str], str]) -> tuple[Study, list[str]]:
    """The study, and the names of its images."""
    try:
        root = ET.fromstring(xml, parser=ET.XMLParser(target=_NoDoctype()))
        uid = root.find("uId").attrib["id"]  # type: ignore[union-attr]
    except (ET.ParseError, AttributeError, KeyError, WorkError) as error:
        raise WorkError(f"{name} is not an OpenI report: {error}") from error
    text = {node.get("Label"): " ".join("".join(node.itertext()).split()) for node in root.iter("AbstractText")}
    sections: dict[str, Any] = {label.lower(): text.get(label, "") for label in SECTIONS}
    mesh = [heading for node in root.iterfind("MeSH/major") if (heading := (node.text or "").strip())]
    images = [node.attrib["id"] for node in root.iter("parentImage") if "id" in node.attrib]
    labels = {"mesh": mesh}
    return Study(study_id=uid, patient_id=uid, split=split_of(uid), labels=labels, source="openi", **sections), images
