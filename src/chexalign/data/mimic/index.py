"""MIMIC-CXR-JPG's tables → which images a study has, whose it is, in which split, and which study came before it."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from chexalign.data.drops import Drops
from chexalign.data.sources.common import need_file
from chexalign.data.splits import known_split
from chexalign.data.tables import read_plain
from chexalign.errors import WorkError

RANKS = {  # the order in which CheXagent shows the views; a code that is not here comes before those without one
    view: rank
    for rank, view in enumerate(
        "PA,AP,LATERAL,LL,AP AXIAL,AP LLD,AP RLD,PA RLD,PA LLD,LAO,RAO,LPO,XTABLE LATERAL,SWIMMERS".split(",")
    )
}
PORTABLE = "CHEST (PORTABLE AP)"  # a procedure that makes one frontal image, for `blank_views: procedure`


@dataclass
class Index:
    """The studies of the metadata: `images` are (rank, dicom_id, view), best rank first."""

    subject: dict[int, int] = field(default_factory=dict)
    split: dict[int, str] = field(default_factory=dict)
    images: dict[int, list[tuple[int, str, str]]] = field(default_factory=lambda: defaultdict(list))
    time: dict[int, tuple[float, float]] = field(default_factory=dict)  # (StudyDate, StudyTime), shifted per patient
    n_images: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # split → images of the whole table

    def priors(self) -> dict[int, int]:
        """Study → the same patient's latest study before it, over all splits and with or without a report.

        By date and time: study ids are random. Studies of the same moment are not prior to one another.
        """
        of_subject = defaultdict(list)
        for study, subject in self.subject.items():
            if any(math.isnan(x) for x in self.time[study]):
                continue
            of_subject[subject].append((self.time[study], study))
        found = {}
        for studies in of_subject.values():
            studies.sort()
            earlier: int | None = None
            for i, (time, study) in enumerate(studies):
                if i and studies[i - 1][0] < time:
                    earlier = studies[i - 1][1]
                if earlier is not None:
                    found[study] = earlier
        return found


def read_index(root: Path, by_procedure: bool, drops: Drops) -> Index:
    """Both tables of the JPG release (2.1.0 keeps 2.0.0's file names), .csv or .csv.gz. Columns are found by name."""
    metadata = need_file(root, ("mimic-cxr-2.0.0-metadata.csv",), "the JPG release (metadata, split and files/)")
    table = need_file(root, ("mimic-cxr-2.0.0-split.csv",), "the JPG release (metadata, split and files/)")
    index, split_of = Index(), {}
    for dicom, split in read_plain(table, ("dicom_id", "split")):
        split_of[dicom] = known_split(split)
    columns = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime")
    blank = "PerformedProcedureStepDescription"
    for row, (dicom, subject, study, view, date, time, procedure) in enumerate(
        read_plain(metadata, columns, (blank,)), 2
    ):
        if dicom not in split_of:
            drops.add(
                "not in the split table", f"{metadata.name}:{row}: image {dicom} has no split; download both tables"
            )
            continue
        if not view:
            drops.note("images without a ViewPosition")
            view = "AP" if by_procedure and procedure == PORTABLE else ""
        elif view not in RANKS:
            drops.note("images of a view that CheXagent's order lacks: shown after the others")
        _add(index, dicom, (subject, study, date, time), view, split_of[dicom])
    for images in index.images.values():
        images.sort()
    return index


def _add(index: Index, dicom: str, ids: tuple[str, str, str, str], view: str, split: str) -> None:
    try:
        subject, study, moment = int(ids[0]), int(ids[1]), (float(ids[2] or "nan"), float(ids[3] or "nan"))
    except ValueError:
        raise WorkError(f"image {dicom} of the metadata: {ids} are no ids, date and time; download it again") from None
    index.subject[study], index.split[study] = subject, split
    index.time[study] = min(index.time.get(study, moment), moment)
    index.n_images[split] += 1
    rank = RANKS.get(view, len(RANKS) if view else len(RANKS) + 1)
    index.images[study].append((rank, dicom, sys.intern(view)))


def image_path(subject: int, study: int, dicom: str) -> str:
    """An image of MIMIC-CXR-JPG 2, relative to its root: p10 is the first two digits of the patient's eight-digit number."""
    return f"files/p{subject // 1_000_000}/p{subject}/s{study}/{dicom}.jpg"
