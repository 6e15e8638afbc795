"""Bad input gets one clear line, and the good rows survive."""

import json

import numpy as np
import pytest
from PIL import Image

from chexalign.data import Drops, check_leakage, load_source, split_by_patient
from chexalign.errors import RecipeError, WorkError
from chexalign.recipe.files import build_recipe
from chexalign.recipe.studies import Studies
from chexalign.records import Study
from chexalign.run.folder import open_run
from chexalign.stages.studies import make_studies


def own_run(tmp_path, rows, **studies):
    root = tmp_path / "own"
    root.mkdir()
    for i in range(30):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.jpg")
    lines = [r if isinstance(r, str) else json.dumps(r) for r in rows]
    (root / "studies.jsonl").write_text("\n".join(lines) + "\n")
    settings = {"source": "jsonl", "root": str(root), **studies}
    raw = {"name": "own", "studies": settings, "warmup": {}, "run_dir": str(tmp_path / "run")}
    return open_run(build_recipe(raw, "test")), root


def row(i: int, **changes):
    return {"study_id": f"s{i}", "patient_id": f"p{i}", "images": [f"{i}.jpg"], "findings": f"Heart {i}.", **changes}


def test_a_users_own_studies_with_every_kind_of_bad_row(tmp_path, capsys):
    rows = [row(i) for i in range(30)]
    rows[3] = row(3, images=["gone.jpg"])
    rows[5] = row(5, findings="  ")
    rows[7] = row(6)  # the id of another row
    rows[9] = row(9, images=["../../etc/passwd"])
    rows[11] = row(11, colour="red")
    rows[16] = '{"study_id": "s16", "findings": '  # line 17
    rows[20] = row(20, split="dev")
    rows[22] = {"findings": "No id."}
    run, root = own_run(tmp_path, rows)
    (root / "13.jpg").write_bytes((root / "13.jpg").read_bytes()[:300])
    result = make_studies(run)

    good = {json.loads(line)["study_id"] for line in run.path("studies.jsonl").read_text().splitlines()}
    assert good == {f"s{i}" for i in range(30)} - {"s3", "s5", "s7", "s9", "s13", "s16", "s20", "s22"}
    assert (result.rows_in, result.rows_out) == (30, 22)
    assert result.dropped == {
        "image missing": 1, "unusable image": 1, "empty reference": 1, "duplicate study id": 1, "bad row": 3,
        "invalid JSON": 1,
    }  # fmt: skip
    lines = run.path("studies_dropped.txt").read_text().splitlines()
    assert len(lines) == 8 and all(";" in line for line in lines)  # each names a remedy
    said = "\n".join(lines)
    for needle in (
        "studies.jsonl:17: invalid JSON", "studies.jsonl:4: study s3: image 1 of 1 is missing", "study s5: no findings text",
        "study s6: a second row", "leaves the folder", "study s13: image 1 of 1 cannot be decoded", "split 'dev'",
        "study_id is missing",
    ):  # fmt: skip
        assert needle in said
    printed = capsys.readouterr().err
    assert "dropped 8 rows" in printed and "note: field colour is not used" in printed
    assert ".jpg" not in said + printed  # a file may be called by a patient's name
    counts = json.loads(run.path("studies_counts.json").read_text())
    assert sum(counts["kept"].values()) == 22 and sum(counts["dropped"]["image missing"].values()) == 1


def test_a_patient_in_two_splits_is_an_error(tmp_path):
    rows = [row(0, split="train"), row(1, split="train"), row(2, split="test", patient_id="p0")]
    run, _ = own_run(tmp_path, rows)
    with pytest.raises(WorkError, match=r"patient p0 is in two splits \(s0: train, s2: test\)"):
        make_studies(run)
    assert not run.path("studies.jsonl").exists()


def test_splits_are_by_patient_and_stable():
    split_of = split_by_patient(0, 0.1, 0.2)
    splits = [split_of(f"p{i}") for i in range(4000)]
    assert splits == [split_by_patient(0, 0.1, 0.2)(f"p{i}") for i in range(4000)]
    shares = [splits.count(s) / 4000 for s in ("val", "test")]
    assert shares == pytest.approx([0.1, 0.2], abs=0.02)
    check_leakage([Study(f"s{i}", f"p{i % 50}", split_of(f"p{i % 50}")) for i in range(200)])


def test_an_unknown_source_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'phantom'"):
        load_source("phantoms")


def test_a_missing_root_says_what_to_give(tmp_path):
    for root, message in ((None, "studies.root=DIR"), (tmp_path / "gone", "does not exist")):
        with pytest.raises(RecipeError, match=message):
            list(load_source("iu_xray")(Studies(source="iu_xray", root=root), 0, tmp_path, Drops()))


def test_iu_xray_reads_the_shared_layout(shared, tmp_path):
    settings = Studies(source="iu_xray", root=shared / "data/iu_xray", views=("frontal",))
    drops = Drops()
    studies = list(load_source("iu_xray")(settings, 0, tmp_path, drops))
    assert len(studies) == 3236 and not drops.lines
    with_image = [s for s in studies if s.images]
    assert len(with_image) > 3000 and all(v == "frontal" for s in with_image for _, v in s.images)
    assert {s.split for s in studies} == {"train", "val", "test"}
    check_leakage(studies)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"x": float("inf")}}, "not JSON compliant"),
        ({"findings": "\ud83d"}, "surrogates not allowed"),
        ({"labels": ["cardiomegaly"]}, "labels must be an object"),
        ({"images": "3.jpg"}, "images must be a list"),
        ({"images": [3]}, "images must be a list"),
        ({"images": [{"file": "3.jpg"}]}, "images must be a list"),
        ({"study_id": None}, "study_id is missing"),
        ({"study_id": [1]}, "study_id must be text"),
        ({"findings": 7}, "findings must be text"),
    ],
)
def test_one_bad_row_never_stops_the_stage(tmp_path, changes, message):
    rows = [row(i) for i in range(30)]
    rows[3] = row(3, **changes)
    run, _ = own_run(tmp_path, rows)
    assert make_studies(run).rows_out == 29
    line = run.path("studies_dropped.txt").read_text()
    assert "studies.jsonl:4: " in line and message in line


def test_patient_zero_is_one_patient(tmp_path):
    run, _ = own_run(tmp_path, [row(i, patient_id=i // 2, study_id=i) for i in range(30)])
    make_studies(run)
    studies = [json.loads(line) for line in run.path("studies.jsonl").read_text().splitlines()]
    assert {s["patient_id"] for s in studies if s["study_id"] in ("0", "1")} == {"0"}
    assert len({s["patient_id"] for s in studies}) == 15


def test_a_split_that_is_needed_must_not_be_empty(tmp_path):
    run, _ = own_run(tmp_path, [row(i) for i in range(30)], test_share=0.0)
    with pytest.raises(WorkError, match="no usable test study"):
        make_studies(run)
