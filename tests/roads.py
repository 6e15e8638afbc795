"""Users' made-up downloads, of phantom radiographs and reports: MIMIC-CXR's, a hospital's table, a DICOM archive, IU X-ray.

`python -m tests.roads FOLDER` writes all of them, to walk the pages of docs/start by hand.
"""

import csv
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from chexalign.data.phantom import make_study
from chexalign.records import Study

KAGGLE = ["uid", "MeSH", "indication", "comparison", "findings", "impression"]
PARTS = {8: "val", 9: "test"}  # of ten patients


def drawn(n: int = 60, size: int = 64) -> Iterator[tuple[int, str, Study, np.ndarray]]:
    """(number of the patient, split, study, its radiograph)."""
    for index in range(n):
        patient = index - index % 2 if index % 6 < 2 else index
        study, film = make_study(0, index, size)
        yield patient, PARTS.get(patient % 10, "train"), study, film


def mimic(folder: Path) -> None:
    """MIMIC-CXR-JPG 2.1.0 below mimic-cxr-jpg/2.1.0 and mimic-cxr-reports.zip; every other study has a lateral too."""
    jpg = folder / "mimic-cxr-jpg/2.1.0"
    metadata = ["dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,StudyDate,StudyTime"]
    splits = ["dicom_id,study_id,subject_id,split"]
    jpg.mkdir(parents=True)
    with zipfile.ZipFile(folder / "mimic-cxr-reports.zip", "w") as archive:
        for i, (patient, split, study, film) in enumerate(drawn()):
            subject, number = 10_000_000 + patient, 50_500_000 + 7919 * i % 1000
            place = f"p10/p{subject}/s{number}"
            (jpg / "files" / place).mkdir(parents=True)
            for view in ("PA", "LATERAL")[: 1 + i % 2]:
                name = f"{i:08x}-{view.lower()}"
                Image.fromarray(film).save(jpg / "files" / place / f"{name}.jpg")
                metadata.append(f"{name},{subject},{number},CHEST (PA AND LAT),{view},2180{i % 12 + 1:02}01,1213.5")
                splits.append(f"{name},{number},{subject},{split.replace('val', 'validate')}")
            archive.writestr(f"files/{place}.txt", _note(study))
    (jpg / "mimic-cxr-2.0.0-metadata.csv").write_text("\n".join(metadata) + "\n")
    (jpg / "mimic-cxr-2.0.0-split.csv").write_text("\n".join(splits) + "\n")


def _note(study: Study) -> str:
    parts = {"INDICATION": study.indication, "FINDINGS": study.findings, "IMPRESSION": study.impression}
    body = "".join(f" {name}:  {text}\n \n" for name, text in parts.items())
    return f"{' ' * 33}FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n \n{body}"


def hospital(folder: Path, encoding: str = "cp1252") -> None:
    """befunde.csv with German columns, English reports and a German word in each, and a folder of PNG beside it."""
    names = "Untersuchungs-Nr.", "Patienten-ID", "Fragestellung", "Befund", "Beurteilung", "Bilddatei", "Projektion"
    (folder / "Bilder").mkdir(parents=True)
    with (folder / "befunde.csv").open("w", encoding=encoding, newline="") as handle:
        table = csv.writer(handle, delimiter=";")
        table.writerow(names)
        for i, (patient, _, study, film) in enumerate(drawn()):
            Image.fromarray(film).save(folder / f"Bilder/Thorax {i:03}.png")
            texts = (f"{study.indication} Überweisung: Dr. Jäger", study.findings, study.impression)
            table.writerow([f"{i:07}", f"{patient:05}", *texts, f"Bilder\\Thorax {i:03}.png", "p.a."])


def archive(folder: Path) -> None:
    """export/, DICOM files without an ending, and reports.csv with a row for each accession number."""
    from tests.data.made_dicom import write

    rows = [["AccessionNumber", "Befund"]]
    for i, (patient, _, study, film) in enumerate(drawn()):
        place = folder / f"export/{patient:05}/{i:03}"
        place.mkdir(parents=True)
        about = {"PatientID": f"MRN-{patient}", "AccessionNumber": f"A{i:05}", "StudyInstanceUID": f"1.2.3.{i}"}
        write(place / "IM0", film.astype(np.uint16) * 16, **about)
        rows.append([f"A{i:05}", study.findings])
    with (folder / "reports.csv").open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows(rows)


def kaggle(folder: Path) -> None:
    """iu_xray/, Kaggle's two tables of IU X-ray with their images, and R2Gen's annotation.json without the last study."""
    root = folder / "iu_xray"
    (root / "images").mkdir(parents=True)
    images, reports = [["uid", "filename", "projection"]], [KAGGLE]
    splits: dict[str, list[dict[str, str]]] = {"train": [], "val": [], "test": []}
    for uid, (_, split, study, film) in enumerate(drawn(), start=1):
        Image.fromarray(film).save(root / f"images/{uid}_IM-0001-4001.dcm.png")
        images.append([str(uid), f"{uid}_IM-0001-4001.dcm.png", "Frontal"])
        reports.append([str(uid), "normal", study.indication, "None.", study.findings, study.impression])
        splits[split].append({"id": f"CXR{uid}_IM-0001"})
    splits["train"].pop()
    (root / "annotation.json").write_text(json.dumps(splits))
    for name, rows in {"projections": images, "reports": reports}.items():
        with (root / f"indiana_{name}.csv").open("w", encoding="utf-8", newline="") as handle:
            csv.writer(handle).writerows(rows)


if __name__ == "__main__":
    for name, make in {"mimic": mimic, "hospital": hospital, "archive": archive, "kaggle": kaggle}.items():
        make(Path(sys.argv[1]) / name)
