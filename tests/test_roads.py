"""The roads of the docs, command by command as printed, from the download to the page; only the model is tiny."""

import json
import shlex
import shutil

import pytest
from typer.testing import CliRunner

from chexalign.cli.commands import app
from tests import roads
from tests.docs.blocks import ROOT, blocks

TINY = [
    "policy.model=tiny", "policy.dtype=float32", "train.lora=null", "train.epochs=1", "train.batch_size=8",
    "policy.tiny={image_size: 32, tower_width: 32, tower_layers: 1, width: 32, layers: 1, heads: 2, vocabulary: 400}",
    "warmup={tower: {steps: 1, eval_every: 1}, reports: {steps: 2, eval_every: 2}}", "sample.limit=12", "sample.n=3",
    "pairs.judge=rouge_l", "evaluate.limit=4", "evaluate.bootstrap=20",
]  # fmt: skip
SHORT = ["sample.max_new_tokens=8"]  # only where it is sampled: `check` finds it too short for the reports


def printed(page: str) -> list[list[str]]:
    """The commands of the page's first block of commands, in their order."""
    block = next(b for b in blocks("") if b.page == ROOT / page and "chexalign run" in b.text)
    return [shlex.split(line, comments=True) for line in block.text.splitlines()]


def walk(commands, folder, monkeypatch):
    """Run them in `folder`; returns what each said, and the run's folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    said = []
    for program, *words in commands:
        if program == "cp":
            shutil.copy(ROOT / words[0], words[1])
            continue
        words = [w for w in words if w != "policy.model=MODEL"]
        extra = {"check": TINY, "studies": [], "run": [*TINY, *SHORT]}[words[0]]
        done = CliRunner().invoke(app, [*words, *extra])
        assert done.exit_code == 0, done.output[-2000:] + repr(done.exception)
        said.append(done.output)
    (run,) = folder.glob("runs/*")
    assert (run / "report.html").exists() == (words[0] == "run")
    return said, run


def kept(run):
    return json.loads((run / "studies_counts.json").read_text())["kept"]


def test_mimic_cxr_from_the_download_to_the_page(tmp_path, monkeypatch):
    roads.mimic(tmp_path)
    said, run = walk(printed("docs/start/mimic-cxr.md"), tmp_path, monkeypatch)
    assert len(said) == 3 and "not a full download" in said[0] and "studies: already finished" in said[2]
    assert kept(run) == {"train": 48, "val": 8, "test": 4}


@pytest.mark.parametrize(("encoding", "n"), [("cp1252", 4), ("utf-8", 3)])
def test_a_hospitals_table_from_the_export_to_the_page(encoding, n, tmp_path, monkeypatch):
    roads.hospital(tmp_path, encoding)
    _, run = walk(printed("docs/start/hospital.md")[:n], tmp_path, monkeypatch)
    studies = [json.loads(line) for line in (run / "studies.jsonl").read_text().splitlines()]
    assert len(studies) == 60 and all(s["indication"].endswith("Überweisung: Dr. Jäger") for s in studies)


def test_a_dicom_folder_from_the_archive_to_the_page(tmp_path, monkeypatch):
    pytest.importorskip("pydicom", reason="chexalign[dicom] is not installed")
    roads.archive(tmp_path)
    recipe = next(b.text for b in blocks("yaml") if b.page == ROOT / "docs/use/images.md")
    recipe = recipe.replace("/archive/export", str(tmp_path / "export"))
    (tmp_path / "mine.yaml").write_text(f"name: archive\nseed: 0\npolicy: {{model: tiny}}\nwarmup: {{}}\n{recipe}")
    _, run = walk([["chexalign", "check", "mine.yaml"], ["chexalign", "run", "mine.yaml"]], tmp_path, monkeypatch)
    assert sum(kept(run).values()) == 60 and len(list((run / "images").glob("*.png"))) == 60
    assert "MRN" not in (run / "studies.jsonl").read_text()


def test_a_public_set_to_the_page(tmp_path, monkeypatch):
    roads.kaggle(tmp_path)
    said, run = walk(printed("docs/use/data.md"), tmp_path, monkeypatch)
    assert "left out as the recipe asks: 1" in said[0] and kept(run) == {"train": 47, "val": 8, "test": 4}
