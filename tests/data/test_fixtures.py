"""Made-up trees in the layouts of the public sets: every one gives what `expected.json` beside it says."""

import json
from collections import Counter
from pathlib import Path

import pytest

from chexalign.data import Drops
from chexalign.data.mimic.sections import conclusion, mit_report
from chexalign.data.read import read_studies
from chexalign.recipe.studies import Studies

FIXTURES = Path(__file__).resolve().parents[3] / "shared/cases/data/fixtures"
MIMIC = FIXTURES / "mimic_cxr/physionet.org/files"
pytestmark = pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"{FIXTURES} is absent: the customer's made-up trees")


def read(**settings):
    drops = Drops()
    return {s.study_id: s for s in read_studies(Studies(**settings), 0, Path("/none"), drops)}, drops


def expected(name):
    return json.loads((FIXTURES / name / "expected.json").read_text())


def mimic(**settings):
    return read(source="mimic_cxr", root=MIMIC / "mimic-cxr-jpg/2.1.0", reports=MIMIC / "mimic-cxr/2.1.0", **settings)


def test_mimic_cxr():
    found, drops = mimic()
    for name, want in expected("mimic_cxr")["studies"].items():
        if want.get("drop") == "report missing":
            assert name not in found and drops.reasons["report missing"] == 1
            continue
        study = found[name]
        assert (study.patient_id, study.split) == (want["patient"], want["split"])
        assert study.images == tuple((path, view) for path, _, view in want["images"])
        assert study.labels["prior_study"] == want["prior_study"]
        for part in {"findings", "impression", "indication", "comparison"} & set(want):
            assert getattr(study, part) == want[part], (name, part)
    assert len(found) == 17


def test_mimic_cxr_sections_and_conclusions():
    for name, want in expected("mimic_cxr")["studies"].items():
        for path in MIMIC.glob(f"mimic-cxr/2.1.0/files/p1*/p*/s{name}.txt"):
            report = mit_report(int(name), path.read_text())
            assert report.last_paragraph == want.get("last_paragraph", "")
            if "conclusion" in want:
                assert conclusion(int(name), path.read_text()) == want["conclusion"]


def test_mimic_cxr_with_a_view_of_the_study_before():
    found, _ = mimic(views=("frontal", "prior"))
    prior = {name: study.images[1] for name, study in found.items() if "prior" in dict(map(reversed, study.images))}
    assert list(prior) == ["51000002"] and prior["51000002"][0] == found["51000001"].images[0][0]


def test_r2gen_of_mimic_by_study_and_by_image():
    want = expected("r2gen_mimic")
    assert len(read(source="r2gen", root=FIXTURES / "r2gen_mimic")[0]) == want["studies"]
    assert len(read(source="r2gen", root=FIXTURES / "r2gen_mimic", unit="image")[0]) == want["rows"]


def test_llava_rad_takes_one_text_of_two():
    found, drops = read(source="llava_rad", root=FIXTURES / "llava_rad")
    assert len(found) == expected("llava_rad")["studies"] and sum(drops.notes.values()) == 1
    other, _ = read(source="llava_rad", root=FIXTURES / "llava_rad", generated_by="gpt4")
    assert found["51000001"].findings != other["51000001"].findings


def test_chexpert_plus():
    found, _ = read(source="chexpert_plus", root=FIXTURES / "chexpert_plus")
    want = expected("chexpert_plus")["studies"]
    assert set(found) == set(want)
    for name, study in found.items():
        about = want[name]
        assert study.images == tuple(map(tuple, about["images"]))
        assert study.split == ("test" if about["split"] == "val_or_test" else "train")
        assert study.patient_id == about["patient"]
        for part in ("indication", "findings", "impression"):
            assert getattr(study, part) == about[part]


@pytest.mark.parametrize("table", ["befunde_cp1252.csv", "befunde_utf8_bom_sep.csv"])
def test_csv_german(table):
    want = expected("csv_german")
    found, drops = read(source="csv", root=FIXTURES / "csv_german" / table, columns=want["columns"])
    assert set(found) == set(want["studies"]) and not drops.lines
    for name, about in want["studies"].items():
        study = found[name]
        assert [p for p, _ in study.images] == about["images"] and [v for _, v in study.images] == about["views"]
        assert study.patient_id == about["patient"]
        for part in ("indication", "findings", "impression"):
            assert getattr(study, part) == about[part]


def test_iu_xray_in_three_public_layouts():
    kaggle, _ = read(source="iu_xray", root=FIXTURES / "iu_kaggle")
    for name, want in expected("iu_kaggle")["studies"].items():
        assert [[Path(p).name, v] for p, v in kaggle[name].images] == want["images"]
        assert kaggle[name].findings == want["findings"]
    r2gen, _ = read(source="iu_xray", root=FIXTURES / "iu_r2gen")
    assert Counter(s.split for s in r2gen.values()) == expected("iu_r2gen")["counts"]
    assert [s.patient_id for s in r2gen.values()] == ["1", "17", "204"]
    for source in ("openi", "iu_xray"):
        openi, _ = read(source=source, root=FIXTURES / "iu_openi")
        for name, want in expected("iu_openi")["studies"].items():
            assert [Path(p).stem for p, _ in openi[name].images] == want["images"]
            for part in ("findings", "impression", "indication"):
                assert getattr(openi[name], part) == want[part]


def test_rexrank_rexgradient_padchest():
    rexrank, _ = read(source="rexrank", root=FIXTURES / "rexrank")
    assert [n for n, s in rexrank.items() if not s.findings] == expected("rexrank")["dropped_for_findings"]
    assert [p for p, _ in rexrank["s1"].images] == ["images/a/1.png", "images/a/0.png"]
    assert (rexrank["s1"].indication, rexrank["s2"].indication) == ("Cough.", "")
    rexgradient, _ = read(source="rexgradient", root=FIXTURES / "rexgradient")
    (study,) = rexgradient.values()
    assert [[p.removeprefix("deid_png/"), v] for p, v in study.images] == expected("rexgradient")["images"]
    padchest, drops = read(source="padchest", root=FIXTURES / "padchest")
    for name, want in expected("padchest")["studies"].items():
        assert [[Path(p).name, v] for p, v in padchest[name].images] == want["images"]
        assert padchest[name].labels["padchest"] == want.get("labels", padchest[name].labels["padchest"])
    assert not padchest["333"].findings and not padchest["444"].images and sum(drops.notes.values()) == 1


def test_labels_without_reports():
    brax, _ = read(source="brax", root=FIXTURES / "brax")
    assert len(brax) == expected("brax")["studies"]
    nih, _ = read(source="nih", root=FIXTURES / "nih")
    assert Counter(s.split for s in nih.values()) == {k: expected("nih")[k] for k in ("train", "test")}
    assert all((FIXTURES / "nih" / path).is_file() for s in nih.values() for path, _ in s.images)


def test_the_real_iu_xray_has_r2gens_split(shared):
    found, drops = read(source="iu_xray", root=shared / "data/iu_xray", split_by="r2gen")
    assert Counter(s.split for s in found.values()) == {
        "train": 2069,
        "val": 296,
    }  # the 590 of test are not in this copy
    assert drops.reasons == {"not in R2Gen's split": 871}
