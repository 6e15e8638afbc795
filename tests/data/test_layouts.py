"""The public sets' rules on trees made here: one small tree a set, in its true layout, and what must be read from it."""

import csv
import json
from pathlib import Path

import pytest

from chexalign.data import Drops
from chexalign.data.mimic import counts
from chexalign.data.read import read_studies
from chexalign.errors import RecipeError, WorkError
from chexalign.recipe.files import build_recipe
from chexalign.recipe.studies import Studies
from chexalign.run.folder import open_run
from chexalign.stages.studies import make_studies

PORTABLE = "CHEST (PORTABLE AP)"
NOTES = {  # study → its report, whose header follows a new line and one space
    50000001: " FINAL REPORT\n INDICATION:  Cough.\n \n FINDINGS:\n IMPRESSION:  Clear ___ lungs.\n",  # swallowed
    50000002: " FINAL REPORT\n Findings:  Small letters.\n \n Impression:  None new.\n",
    50000003: " FINAL REPORT\n FINDINGS:  First.\n \n FINDINGS:  Second.\n \n IMPRESSION:  Both.\n",
}


def write_table(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows(rows)


def read(source, root, **settings):
    drops = Drops()
    return {s.study_id: s for s in read_studies(Studies(source=source, root=root, **settings), 0, root, drops)}, drops


@pytest.fixture
def mimic(tmp_path):
    """Three patients with a study of one image each: PA, and two without a view, of which one is portable."""
    columns = "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition"
    metadata, splits = [[*columns, "StudyDate", "StudyTime"]], [["dicom_id", "study_id", "subject_id", "split"]]
    views = [("PA", ""), ("", PORTABLE), ("", "CHEST (PA AND LAT)")]
    for i, (study, text) in enumerate(NOTES.items()):
        metadata.append([f"d{i}", 10000000 + i, study, views[i][1], views[i][0], 21800101, 1200.5])
        splits.append([f"d{i}", study, 10000000 + i, ("train", "validate", "test")[i]])
        path = tmp_path / f"reports/files/p10/p{10000000 + i}/s{study}.txt"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    write_table(tmp_path / "jpg/mimic-cxr-2.0.0-metadata.csv", metadata)
    write_table(tmp_path / "jpg/mimic-cxr-2.0.0-split.csv", splits)
    return tmp_path


@pytest.mark.parametrize(
    ("sections", "findings"),
    [
        ("mit", ["IMPRESSION: Clear ___ lungs.", "", "Second."]),
        ("repaired", ["", "Small letters.", "First. Second."]),
    ],
)
def test_mimic_sections_by_mit_and_repaired(sections, findings, mimic):
    found, _ = read("mimic_cxr", mimic / "jpg", reports=mimic / "reports", sections=sections)
    assert [found[str(n)].findings for n in NOTES] == findings
    assert [found[str(n)].split for n in NOTES] == ["train", "val", "test"]
    if sections == "repaired":
        assert [found[str(n)].impression for n in NOTES] == ["Clear ___ lungs.", "None new.", "Both."]


def test_mimic_blank_views_by_procedure(mimic):
    for blank, views in {
        "unknown": ["frontal", "unknown", "unknown"],
        "procedure": ["frontal", "frontal", "unknown"],
    }.items():
        found, drops = read("mimic_cxr", mimic / "jpg", reports=mimic / "reports", blank_views=blank)
        assert [s.images[0][1] for s in found.values()] == views and drops.notes["images without a ViewPosition"] == 2


def test_mimic_reports_from_a_ready_table_of_sections(mimic):
    rows = [["study", "impression", "findings", "last_paragraph", "comparison"]]
    rows += [[f"s{n}", "I.", f"Table\n {n}.", "", ""] for n in NOTES if n != 50000003]
    write_table(mimic / "mimic_cxr_sectioned.csv", rows)
    found, drops = read("mimic_cxr", mimic / "jpg", reports=mimic / "mimic_cxr_sectioned.csv")
    assert {n: s.findings for n, s in found.items()} == {"50000001": "Table 50000001.", "50000002": "Table 50000002."}
    assert drops.reasons == {"report missing": 1}
    with pytest.raises(RecipeError, match="holds ready sections"):
        read("mimic_cxr", mimic / "jpg", reports=mimic / "mimic_cxr_sectioned.csv", sections="repaired")


def test_a_preset_fails_on_a_full_download_alone(mimic, monkeypatch):
    settings = {"reports": mimic / "reports", "preset": "chexagent"}
    assert len(read("mimic_cxr", mimic / "jpg", **settings)[0]) == 3
    monkeypatch.setattr(counts, "IMAGES", {"train": 1, "val": 1, "test": 1})  # as if these were all there are
    with pytest.raises(WorkError, match=r"preset chexagent on a full download gives other counts .*should be 152,173"):
        read("mimic_cxr", mimic / "jpg", **settings)


def test_required_sections_drop_the_studies_without(tmp_path):
    rows = [
        {
            "study_id": f"s{i}",
            "split": ("train", "test")[i % 2],
            "findings": "Clear.",
            "indication": "Cough." if i else " ",
        }
        for i in range(6)
    ]
    (tmp_path / "studies.jsonl").write_text("\n".join(map(json.dumps, rows)))
    studies = {"source": "jsonl", "root": str(tmp_path), "require": ["indication"], "max_images": 0}
    run = open_run(
        build_recipe(
            {"name": "own", "studies": studies, "policy": {"model": "other"}, "run_dir": str(tmp_path / "run")}, "test"
        )
    )
    assert make_studies(run).dropped == {"no indication": 1} and len(run.studies()) == 5


def test_chexpert_plus(tmp_path):
    names = (
        "path_to_image,frontal_lateral,ap_pa,deid_patient_id,split,section_clinical_history,section_history,"
        "section_comparison,section_findings,section_impression"
    ).split(",")
    study = "train/patient00001/study1"
    rows = [
        [f"{study}/view2_lateral.jpg", "Lateral", "", "patient00001", "train", "", "Fall.", "", "Later date.", "I."],
        [f"{study}/view1_frontal.jpg", "Frontal", "AP", "patient00001", "train", "", "Fall.", "", "First\n view.", "I."],
        ["valid/patient00002/study1/view1_frontal.jpg", "Frontal", "PA", "patient00002", "valid", "Pain.", "", "", "", "II."],
        ["other/patient00003/study1/view1_frontal.jpg", "Frontal", "PA", "patient00003", "other", "", "", "", "", ""],
    ]  # fmt: skip
    write_table(tmp_path / "df_chexpert_plus_240401.csv", [names, *rows])
    (tmp_path / "PNG/PNG/train").mkdir(parents=True)  # unpacked into itself
    found, drops = read("chexpert_plus", tmp_path, val_share=0.0)
    train, test = found[study], found["valid/patient00002/study1"]
    assert train.images == (
        (f"PNG/PNG/{study}/view1_frontal.png", "frontal"),
        (f"PNG/PNG/{study}/view2_lateral.png", "lateral"),
    )
    assert (train.findings, train.indication, train.split) == ("First view.", "Fall.", "train")
    assert (test.findings, test.impression, test.indication, test.split) == ("", "II.", "Pain.", "test")
    assert drops.reasons == {"bad row": 1} and len(found) == 2


def test_iu_xray_of_kaggle_with_r2gens_split(tmp_path):
    columns = ["uid", "MeSH", "indication", "comparison", "findings", "impression"]
    reports = [
        columns,
        ["1", "normal", "Cough", "None.", "Clear\n lungs.", "Normal."],
        ["7", "Opacity/lung;Scar", "", "", "", "I."],
    ]
    write_table(tmp_path / "indiana_reports.csv", reports)
    images = [
        ["uid", "filename", "projection"],
        ["1", "1_a.png", "Frontal"],
        ["1", "1_b.png", "Lateral"],
        ["7", "7.png", "Lateral"],
    ]
    write_table(tmp_path / "indiana_projections.csv", images)
    (tmp_path / "images/images_normalized").mkdir(parents=True)
    found, _ = read("iu_xray", tmp_path)
    place = "images/images_normalized"
    assert found["1"].images == ((f"{place}/1_a.png", "frontal"), (f"{place}/1_b.png", "lateral"))
    assert (found["1"].findings, found["7"].findings) == ("Clear lungs.", "")
    assert found["7"].labels == {"mesh": ["Opacity/lung", "Scar"]}
    with pytest.raises(RecipeError, match=r"put R2Gen's annotation.json"):
        read("iu_xray", tmp_path, split_by="r2gen")
    (tmp_path / "annotation.json").write_text(json.dumps({"train": [], "val": [], "test": [{"id": "CXR7_IM-1"}]}))
    found, drops = read("iu_xray", tmp_path, split_by="r2gen")
    assert {n: s.split for n, s in found.items()} == {"7": "test"}
    assert drops.reasons == {"not in R2Gen's split": 1} and not drops.faults


def test_rexgradient(tmp_path):
    (tmp_path / "metadata").mkdir()
    good = {"PatientID": "p1", "ImagePath": ["../deid_png/a/1.png", "../deid_png/a/2.png"], "Findings": "F.",
            "ImageViewPosition": ["PA", None], "Indication": "nan"}  # fmt: skip
    rows = {"a": good, "b": good | {"ImagePath": ["../../secret.png"]}, "c": good | {"ImageViewPosition": ["PA"]}}
    (tmp_path / "metadata/valid_metadata_view_position.json").write_text(json.dumps(rows))
    found, drops = read("rexgradient", tmp_path)
    assert found["a"].images == (("deid_png/a/1.png", "frontal"), ("deid_png/a/2.png", "unknown"))
    assert (found["a"].split, found["a"].indication, found["a"].patient_id) == ("val", "", "p1")
    assert [v for _, v in found["c"].images] == ["unknown"] * 2  # as many views as images, or none is believed
    assert drops.reasons == {"bad row": 1} and "leaves the folder" in drops.lines[0]


def test_padchest(tmp_path):
    columns = ["ImageID", "ImageDir", "StudyID", "PatientID", "Projection", "ViewPosition_DICOM", "Report", "Labels"]
    rows = [
        ["1.png", "0", "s1", "p1", "PA", "POSTEROANTERIOR", "sin hallazg", "['normal', ' ', '']"],
        ["2.png", "0", "s1", "p1", "L", "LATERAL", "sin hallazg", "['normal']"],
        ["3.png", "1", "s2", "p2", "COSTAL", "", "fractur costal", "nan"],
        ["4.png", "1", "s3", "p3", "", "ANTEROPOSTERIOR", "", "[' pleural effusion', 'unchanged']"],
        ["5.png", "1", "s4", "p4", "PA", "", "x", "normal"],
    ]
    write_table(tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", [columns, *rows])
    found, drops = read("padchest", tmp_path)
    assert found["s1"].images == (("0/1.png", "frontal"), ("0/2.png", "lateral"))
    assert found["s2"].images == () and drops.notes["images of no chest view (COSTAL): left out"] == 1
    assert found["s3"].images == (("1/4.png", "frontal"),)
    assert {n: s.labels["padchest"] for n, s in found.items()} == {
        "s1": ["normal"], "s2": [], "s3": ["pleural effusion", "unchanged"],
    }  # fmt: skip
    assert drops.reasons == {"bad row": 1} and "Labels is no list" in drops.lines[0]
