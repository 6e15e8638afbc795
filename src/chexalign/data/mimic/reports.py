"""Where the reports of MIMIC-CXR are: a folder tree, mimic-cxr-reports.zip, or a ready mimic_cxr_sectioned.csv."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from chexalign.data.mimic.repaired import repaired_report
from chexalign.data.mimic.sections import Report, mit_report, one_line
from chexalign.data.mimic.special import SPECIAL
from chexalign.data.tables import read_plain
from chexalign.errors import RecipeError, WorkError
from chexalign.recipe.studies import Studies

ReportOf = Callable[[int, int], Report | None]  # (subject, study) → its sections; None where it has no report
WHERE = (
    "the JPG release holds no reports: studies.reports=… names them, as the folder or the zip of the other release "
    "(mimic-cxr-reports.zip at physionet.org/content/mimic-cxr), or as your mimic_cxr_sectioned.csv"
)


def open_reports(settings: Studies) -> ReportOf:
    """A function that gives the sections of one study. Raises RecipeError where there are no reports."""
    path = settings.reports or settings.root or Path()
    if not path.exists():
        raise RecipeError(f"studies.reports {path} does not exist; {WHERE}")
    section = mit_report if settings.sections == "mit" else repaired_report
    if path.is_dir() and (folder := _tree(path)) is not None:
        return lambda subject, study: _sectioned(_read(folder / _name(subject, study)), section, study)
    if path.is_dir():
        packed = [path / "mimic-cxr-reports.zip", path / "mimic_cxr_sectioned.csv", path / "mimic_cxr_sectioned.csv.gz"]
        path = next((p for p in packed if p.is_file()), path)
    if path.suffix == ".zip":
        texts = _zip(path)
        return lambda subject, study: _sectioned(texts(_name(subject, study)), section, study)
    if path.name.endswith((".csv", ".csv.gz")):
        if settings.sections == "repaired":
            raise RecipeError(
                f"studies.sections is repaired: {path.name} holds ready sections; give the reports themselves"
            )
        return _table(path)
    raise RecipeError(f"{path} holds no report (files/p10/p10000032/s50414267.txt); {WHERE}")


def _name(subject: int, study: int) -> str:
    return f"p{subject // 1_000_000}/p{subject}/s{study}.txt"


def _sectioned(text: str | None, section: Callable[[int, str], Report], study: int) -> Report | None:
    return None if text is None else section(study, text)


def _tree(path: Path) -> Path | None:
    """The folder with p10 to p19, where reports lie in it: the first text found says so."""
    for folder in (path / "files", path, path / "mimic-cxr-reports" / "files", path / "mimic-cxr-reports"):
        if any(next(group.glob("p*/s*.txt"), None) for group in sorted(folder.glob("p1[0-9]"))):
            return folder
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")  # ends of lines become newlines, as where MIT counted its characters
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise WorkError(f"report {path.name} cannot be read ({error}); download it again") from error


def _zip(path: Path) -> Callable[[str], str | None]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise WorkError(f"{path.name} is not a readable zip ({error}); download it again") from error
    names = {n[n.index("p1") :]: n for n in archive.namelist() if n.endswith(".txt") and "/s" in n and "p1" in n}

    def text_of(name: str) -> str | None:
        if name not in names:
            return None
        try:
            return archive.read(names[name]).decode().replace("\r\n", "\n")
        except (zipfile.BadZipFile, zlib.error, OSError, UnicodeDecodeError) as error:
            raise WorkError(f"{path.name}: {name} cannot be read ({error}); download it again") from error

    return text_of


def _report(indication: str, comparison: str, findings: str, impression: str, paragraph: str) -> Report:
    return Report(indication, comparison, findings, impression, paragraph)


def _table(path: Path) -> ReportOf:
    """A mimic_cxr_sectioned.csv, made by MIT-LCP's create_section_files.py; an `indication` column is used if there."""
    rows: dict[int, Report] = {}
    names = ("study", "impression", "findings", "last_paragraph", "comparison")
    for number, (study, impression, findings, paragraph, comparison, indication) in enumerate(
        read_plain(path, names, ("indication",)), start=2
    ):
        if not study.removeprefix("s").isdigit():
            raise WorkError(f"{path.name}: row {number}: {study!r} is no study; it reads like s50414267")
        texts = (one_line(t) for t in (indication, comparison, findings, impression, paragraph))
        rows[int(study.removeprefix("s"))] = _report(*texts)

    def report_of(subject: int, study: int) -> Report | None:
        found = rows.get(study)
        return (
            Report(remarks=("one of the 54 without a row of sections",))
            if found is None and study in SPECIAL
            else found
        )

    return report_of
