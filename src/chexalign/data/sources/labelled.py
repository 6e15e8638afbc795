"""Sources `brax`, `nih`, `vindr`: images with labels and without reports. Nothing is written about them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from chexalign.data.drops import Drops
from chexalign.data.paths import image_folder, inside_root
from chexalign.data.sources.common import FINDINGS_14, chexpert_labels, need_file, need_root
from chexalign.data.splits import by_patient, val_of_train
from chexalign.data.tables import find_table, read_header, read_plain
from chexalign.errors import RecipeError
from chexalign.recipe.studies import Studies
from chexalign.records import Study

SAME = {  # names of NIH and VinDr → the 14; what is not here has none that means it
    "Mass": "Lung Lesion", "Nodule": "Lung Lesion", "Nodule/Mass": "Lung Lesion", "Lung tumor": "Lung Lesion",
    "Atelectasis": "Atelectasis", "Cardiomegaly": "Cardiomegaly", "Consolidation": "Consolidation", "Edema": "Edema",
    "Effusion": "Pleural Effusion", "Pleural effusion": "Pleural Effusion", "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax", "No Finding": "No Finding", "No finding": "No Finding",
    "Lung Opacity": "Lung Opacity", "Clavicle fracture": "Fracture", "Rib fracture": "Fracture",
}  # fmt: skip

NIH = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "No Finding",
)  # fmt: skip


def as_chexpert(said: Sequence[str], vocabulary: Sequence[str]) -> dict[str, int | None]:
    """The 14 for an image that a set says these labels of: 1, or 0, or None where none of its words means the label."""
    asked = {SAME[name] for name in vocabulary if name in SAME}
    present = {SAME[name] for name in said if name in SAME}
    return {name: int(name in present) if name in asked else None for name in FINDINGS_14}


def brax(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """`root` holds master_spreadsheet_update.csv and images/. A study is a patient's accession number."""
    root = need_root(settings, "master_spreadsheet_update.csv and images/")
    table = need_file(root, ("master_spreadsheet_update.csv",), "master_spreadsheet_update.csv and images/")
    images, split_of = image_folder(settings, folder), by_patient(settings, seed)
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    about: dict[str, tuple[str, dict[str, int]]] = {}
    names = ("PngPath", "PatientID", "AccessionNumber", "ViewPosition", *FINDINGS_14)
    for path, patient, accession, view, *labels in read_plain(table, names):
        study_id = f"{patient}_{accession}"  # the accession number alone is another patient's too
        found[study_id].append((inside_root(path, images), view))
        about.setdefault(study_id, (patient, chexpert_labels(dict(zip(FINDINGS_14, labels, strict=True)))))
    for study_id, (patient, known) in about.items():
        yield Study(
            study_id=study_id,
            patient_id=patient,
            split=split_of(patient),
            images=tuple(found[study_id]),
            labels={"chexpert": known},
            source="brax",
        )


def nih(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """`root` holds Data_Entry_2017*.csv and images_001/ to images_012/ (or images/). An image is a study.

    Test is the official test_list.txt, val is carved out of train_val_list.txt; without the lists, by patient.
    """
    root = need_root(settings, "Data_Entry_2017_v2020.csv and images_001/ …")
    table = need_file(root, ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv"), "Data_Entry_2017_v2020.csv")
    images, test = image_folder(settings, folder), _official(root)
    places = {p.name: p.relative_to(images).as_posix() for p in images.glob("images*/images/*.png")}
    by_hash = by_patient(settings, seed) if test is None else val_of_train(settings, seed)
    for name, findings, patient, view in read_plain(
        table, ("Image Index", "Finding Labels", "Patient ID", "View Position")
    ):
        labels = findings.split("|")
        yield Study(
            study_id=name.rsplit(".", 1)[0],
            patient_id=patient,
            split="test" if test is not None and name in test else by_hash(patient),
            images=((places.get(name, f"images/{name}"), view),),
            labels={"nih": labels, "chexpert": as_chexpert(labels, NIH)},
            source="nih",
        )


def _official(root: Path) -> frozenset[str] | None:
    path = root / "test_list.txt"
    return frozenset(path.read_text(encoding="utf-8").split()) if path.is_file() else None


def vindr(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """`root` holds train/, test/ and annotations/image_labels_{train,test}.csv. The set names no patients.

    A label of a training image is what two of its three readers say; the test's are the consensus of the set.
    """
    root = need_root(settings, "train/, test/ and annotations/")
    folder_of_tables = root / "annotations" if (root / "annotations").is_dir() else root
    carved, any_table = val_of_train(settings, seed), False
    for part in ("train", "test"):
        table = find_table(folder_of_tables, f"image_labels_{part}.csv")
        if table is None:
            continue
        any_table = True
        votes, readers, names = _votes(table)
        suffix = next((p.suffix for p in (image_folder(settings, folder) / part).glob("*.*")), ".dicom")
        for image, counted in votes.items():
            labels = [n for n in names if 2 * counted[n] > readers[image]]
            yield Study(
                study_id=image,
                patient_id=image,
                split="test" if part == "test" else carved(image),
                images=((f"{part}/{image}{suffix}", "frontal"),),  # the set holds PA images alone
                labels={"vindr": labels, "chexpert": as_chexpert(labels, names)},
                source="vindr",
            )
    if not any_table:
        raise RecipeError(
            f"studies.root {root} holds no annotations/image_labels_train.csv; point it at the set's folder"
        )


def _votes(table: Path) -> tuple[dict[str, Counter[str]], Counter[str], list[str]]:
    """Image → label → readers who say it; image → its readers; the labels."""
    names = [n for n in read_header(table) if n.lower() not in ("image_id", "rad_id")]
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    readers: Counter[str] = Counter()
    for image, *values in read_plain(table, ("image_id", *names)):
        readers[image] += 1
        votes[image].update(n for n, v in zip(names, values, strict=True) if v and float(v) == 1)
    return votes, readers, names
