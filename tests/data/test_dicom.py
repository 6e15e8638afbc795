import json
import subprocess

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="chexalign[dicom] is not installed")

from tests.data.made_dicom import chest, write

from chexalign.data import Drops, load_source
from chexalign.data.dicom_header import view_of
from chexalign.data.identity import hasher
from chexalign.data.images import load_image
from chexalign.errors import RecipeError
from chexalign.recipe.recipe import Recipe
from chexalign.recipe.studies import Studies
from chexalign.run.folder import open_run
from chexalign.stages.studies import make_studies


@pytest.fixture(autouse=True)
def _own_key(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def read(root, **settings):
    drops = Drops()
    wanted = Studies(source="dicom", root=root, **settings)
    return list(load_source("dicom")(wanted, 0, root, drops)), drops


def archive(root):
    """Six patients with a study of two views each, in folders that bear their names, and what lies beside in an export."""
    for n in range(6):
        folder = root / f"DOE_JANE_{n}" / "S1"
        folder.mkdir(parents=True)
        common = {"PatientID": f"MRN-{n}", "AccessionNumber": f"A{n}", "StudyInstanceUID": f"1.2.3.{n}"}
        film = np.roll(chest(), n, axis=1)
        write(folder / "IM1", film, AcquisitionTime="101010", **common)
        write(folder / "IM2", film // 2, ViewPosition="LL", PatientOrientation=["A", "F"], **common)
    (root / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (root / "notes.txt").write_text("Jane Doe")
    write(root / "DOE_JANE_0" / "state", Modality="PR", Rows=None, Columns=None, PixelData=None)
    rows = [f"A{n};Lungs are clear {n}.;{'test' if n == 5 else 'train'}" for n in range(6)]
    table = root.parent / "reports.csv"
    table.write_text("\n".join(["AccessionNumber;findings;split", *rows]))
    return table


def test_fixture_folder_gives_what_it_expects(shared):
    root = shared / "cases/data/fixtures/dicom_folder"
    expected = json.loads((root / "expected.json").read_text())["files"]
    studies, drops = read(root)
    views = {path: view for study in studies for path, view in study.images}
    listed = subprocess.run(
        "find . -type f | LC_ALL=C sort", shell=True, cwd=root, capture_output=True, text=True, check=True
    ).stdout.split()
    dropped = {listed[int(line.split()[1]) - 1].removeprefix("./") for line in drops.lines}
    copies = {"10_jpeg_lossless_sv1.dcm", "11_jpeg2000_lossless.dcm", "12_rle.dcm"}  # of 01, by SOPInstanceUID
    for name, what in expected.items():
        if name in copies or what["action"] in ("skip", "duplicate view"):
            assert name not in views and name not in dropped
        elif name == "30_truncated.dcm":
            with pytest.raises(Exception, match="cannot be decoded"):
                load_image(root, name)
        elif what["action"] == "drop":
            assert name in dropped and name not in views
        else:
            assert views[name] == ("lateral" if what["view"] == "lateral" else "frontal")
    grouped = [s for s in studies if len(s.images) == 2]
    assert [p for p, _ in grouped[0].images] == ["study_100/SER00001/IMG00001", "study_100/SER00001/IMG00002"]


@pytest.mark.parametrize(
    "header, view, where",
    [
        ({"ViewPosition": "AP"}, "frontal", "ViewPosition"),
        ({"ViewPosition": "RL"}, "lateral", "ViewPosition"),
        ({"ViewPosition": "LAO"}, "other", "ViewPosition"),
        ({"SeriesDescription": "CHEST PA"}, "frontal", "SeriesDescription"),
        ({"SeriesDescription": "Thorax seitlich"}, "lateral", "SeriesDescription"),
        ({"SeriesDescription": "PA AND LATERAL", "ProtocolName": "W033_Chest_lat."}, "lateral", "ProtocolName"),
        ({"PatientOrientation": ["L", "F"]}, "frontal", "PatientOrientation"),
        ({"PatientOrientation": ["P", "F"]}, "lateral", "PatientOrientation"),
        ({"PatientOrientation": ["F", "R"]}, "frontal", "PatientOrientation"),
        ({}, "unknown", ""),
    ],
)
def test_views_are_read_where_they_are_said(tmp_path, header, view, where):
    full = {"ViewPosition": None, "PatientOrientation": None} | header
    assert view_of(write(tmp_path / "a", **full)) == (view, where)


def test_an_archive_becomes_studies_and_no_name_leaves_it(tmp_path, capfd):
    root = tmp_path / "export"
    table = archive(root)
    (root / "DOE_JANE_1" / "S1" / "IM2").write_bytes((root / "DOE_JANE_1" / "S1" / "IM2").read_bytes()[:3000])
    recipe = Recipe(
        name="own",
        run_dir=tmp_path / "run",
        studies=Studies(source="dicom", root=root, reports=table, equalise=True),
        policy={"model": "other"},
    )
    run = open_run(recipe)
    result = make_studies(run)
    assert result.rows_out == 5 and result.dropped == {"unusable image": 1}
    rows = [json.loads(line) for line in run.path("studies.jsonl").read_text().splitlines()]
    for row in rows:
        assert [view for _, view in row["images"]] == ["frontal", "lateral"] and row["findings"]
        film = load_image(run.dir, row["images"][0][0])
        assert film.size == (80, 96)
        levels = np.percentile(np.asarray(film.convert("L")), [25, 50, 75])
        assert np.abs(levels - [63.75, 127.5, 191.25]).max() < 5  # equalised
    said = "".join(capfd.readouterr())
    for path in run.dir.rglob("*"):
        said += path.name + (path.read_bytes().decode("latin-1") if path.is_file() else "")
    for secret in ("DOE", "Doe", "Jane", "JANE", "MRN", "19501231", "1.2.3.0"):
        assert secret not in said, secret


def test_ids_hang_on_the_key_alone(tmp_path):
    (tmp_path / "a.key").write_text("0123456789abcdef0123")
    (tmp_path / "b.key").write_text("another secret of some length")
    (tmp_path / "short.key").write_text("abc")
    a, again, b = hasher(tmp_path / "a.key"), hasher(tmp_path / "a.key"), hasher(tmp_path / "b.key")
    assert a("MRN-1") == again("MRN-1") != b("MRN-1") and len(a("MRN-1")) == 16
    own = hasher()
    kept = tmp_path / "config/chexalign/id.key"
    assert hasher()("x") == own("x") and kept.stat().st_mode & 0o777 == 0o600
    for name, message in (("short.key", "holds 3 bytes"), ("none.key", "cannot be read")):
        with pytest.raises(RecipeError, match=message):
            hasher(tmp_path / name)


def test_of_two_films_of_a_view_the_first_acquired_is_kept(tmp_path):
    common = {"StudyInstanceUID": "1.2.3"}
    write(tmp_path / "late", AcquisitionTime="120000", SeriesNumber=1, **common)
    write(tmp_path / "early", AcquisitionTime="090000", SeriesNumber=2, **common)
    write(tmp_path / "raw", AcquisitionTime="080000", PresentationIntentType="FOR PROCESSING", **common)
    write(tmp_path / "marked", ViewPosition="LL", BurnedInAnnotation="YES", **common)
    studies, drops = read(tmp_path)
    assert [s.images for s in studies] == [(("early", "frontal"), ("marked", "lateral"))]
    assert dict(drops.reasons) == {"for processing": 1}
    studies, drops = read(tmp_path, dicom={"burned_in": "drop"})
    assert [s.images for s in studies] == [(("early", "frontal"),)] and drops.reasons["burnt-in annotation"] == 1


def test_reports_that_fit_no_study_or_twice_are_told(tmp_path):
    root = tmp_path / "films"
    root.mkdir()
    write(root / "a", StudyInstanceUID="1.2.3", AccessionNumber="A1")
    table = tmp_path / "r.csv"
    table.write_text("Study UID,Befund,split\n1.2.3,Klar.,train\n1.2.3,Anders.,train\n9.9,Fremd.,train\n")
    (study,), drops = read(root, reports=table, columns={"findings": "Befund"})
    assert study.findings == "Klar." and study.split == "train"
    assert drops.lines == ["r.csv:3: a second row of this study; remove one"]
    assert drops.notes["rows of studies.reports without a DICOM study"] == 1
    with pytest.raises(RecipeError, match="no column 'Report'"):
        read(root, reports=table, columns={"findings": "Report"})
    table.write_text("x,y\n1,2\n")
    with pytest.raises(RecipeError, match="accession numbers or study UIDs"):
        read(root, reports=table)
