"""Source `mimic_cxr`: MIMIC-CXR-JPG 2.0 or 2.1 and its reports, with official splits, by study or by image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from chexalign.data.drops import Drops
from chexalign.data.mimic.counts import compare
from chexalign.data.mimic.index import Index, image_path, read_index
from chexalign.data.mimic.reports import open_reports
from chexalign.data.mimic.sections import Report
from chexalign.data.sources.common import FINDINGS_14, chexpert_labels, need_root
from chexalign.data.tables import find_table, read_plain
from chexalign.data.views import PRIOR, chosen
from chexalign.progress import say
from chexalign.recipe.studies import Studies
from chexalign.records import Study

LABELS = "mimic-cxr-2.0.0-chexpert.csv"
RADIOLOGISTS = "mimic-cxr-2.1.0-test-set-labeled.csv"  # 687 test studies; says Airspace Opacity for Lung Opacity


def mimic_cxr(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """`root` is the JPG release, `reports` the reports; neither is written to. Ids are the bare numbers.

    A row is a study with its images in CheXagent's order, or with `unit: image` one image (its dicom_id is the id).
    `labels` hold `prior_study`, CheXpert's labels of the report's conclusion as `chexpert_conclusion` (no reference for
    findings), and the radiologists' as `radiologist`. A view `prior` is the first frontal image of the study before.
    """
    root = need_root(settings, "mimic-cxr-2.0.0-metadata.csv.gz, the split table and files/")
    index = read_index(root, settings.blank_views == "procedure", drops)
    report_of, prior = open_reports(settings), index.priors()
    labels, truth = _labels(root, LABELS), _labels(root, RADIOLOGISTS)
    counts: Counter[str] = Counter()
    for study in sorted(index.images, key=lambda s: (index.subject[s], s)):
        subject, split = index.subject[study], index.split[study]
        report = report_of(subject, study)
        if report is None:
            drops.add("report missing", f"study {study}: its report s{study}.txt is not there; download it", split)
            continue
        for remark in report.remarks:
            drops.note(remark)
        known: dict[str, object] = {"prior_study": str(prior[study]) if study in prior else None}
        known |= {"chexpert_conclusion": labels[study]} if study in labels else {}
        known |= {"radiologist": truth[study]} if study in truth else {}
        before = _frontal(index, prior.get(study)) if PRIOR in settings.views else ()
        for found in _rows(index, study, report, known, settings, before):
            counts[split] += bool(found.findings and chosen(found.images, settings.views, settings.view_names))
            yield found
    if settings.preset:
        for line in compare(settings.preset, counts, index.n_images):
            say(line)


def _rows(
    index: Index,
    study: int,
    report: Report,
    labels: dict[str, object],
    settings: Studies,
    prior: tuple[tuple[str, str], ...],
) -> Iterator[Study]:
    subject = index.subject[study]
    images = tuple((image_path(subject, study, dicom), view) for _, dicom, view in index.images[study])
    make = partial(
        Study,
        patient_id=str(subject),
        split=index.split[study],
        indication=report.indication,
        comparison=report.comparison,
        findings=report.findings,
        impression=report.impression,
        source="mimic_cxr",
    )
    if settings.unit == "study":
        yield make(study_id=str(study), images=images + prior, labels=labels)
        return
    for (_, dicom, _), image in zip(index.images[study], images, strict=True):
        if chosen((image,), settings.views, settings.view_names):
            yield make(study_id=dicom, images=(image, *prior), labels=labels | {"study": str(study)})


def _frontal(index: Index, study: int | None) -> tuple[tuple[str, str], ...]:
    """The first AP or PA image of a study, as the prior of another."""
    if study is None or index.images[study][0][2] not in ("PA", "AP"):
        return ()
    return ((image_path(index.subject[study], study, index.images[study][0][1]), PRIOR),)


def _labels(root: Path, name: str) -> dict[int, dict[str, int]]:
    path = find_table(root, name)
    if path is None:
        return {}
    names = FINDINGS_14 if name == LABELS else tuple(n.replace("Lung Opacity", "Airspace Opacity") for n in FINDINGS_14)
    return {
        int(study): chexpert_labels(dict(zip(FINDINGS_14, values, strict=True)))
        for study, *values in read_plain(path, ("study_id", *names))
    }
