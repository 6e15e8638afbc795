"""Sets of images with labels and no report: what their labels say, and whom they teach."""

import json
from collections import Counter

import torch
from PIL import Image
from tests import roads
from tests.test_roads import SHORT, TINY
from torch.nn import functional as F
from typer.testing import CliRunner

from chexalign.cli.commands import app
from chexalign.data import Drops
from chexalign.data.read import read_studies
from chexalign.labels.studies import FINDINGS, tower_labels
from chexalign.labels.truth import study_labels
from chexalign.recipe.studies import Studies
from chexalign.stages import warmup
from chexalign.train.warmup.tower import TowerExample, TowerTask, tower_examples


def nih(root):
    """Thirty images of as many patients: every third a nodule, the last three of the official test."""
    (root / "images").mkdir(parents=True)
    rows = ["Image Index,Finding Labels,Follow-up #,Patient ID,View Position"]
    for i, (_, _, _, film) in enumerate(roads.drawn(30)):
        Image.fromarray(film).save(root / f"images/{i:08}_000.png")
        rows.append(f"{i:08}_000.png,{('Nodule|Effusion', 'No Finding', 'Hernia')[i % 3]},0,{i},PA")
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join(rows) + "\n")
    (root / "test_list.txt").write_text("\n".join(f"{i:08}_000.png" for i in (27, 28, 29)))


def vindr(root):
    """Two training images of three readers each, one of the test."""
    (root / "annotations").mkdir(parents=True)
    names = "image_id,rad_id,Cardiomegaly,Rib fracture,No finding"
    votes = ["a,R1,1,0,0", "a,R2,1,1,0", "a,R3,0,0,0", "b,R1,0,0,1", "b,R2,0,0,1", "b,R3,1,0,0"]
    (root / "annotations/image_labels_train.csv").write_text("\n".join([names, *votes]) + "\n")
    (root / "annotations/image_labels_test.csv").write_text("image_id,Cardiomegaly,Rib fracture,No finding\nc,0,1,0\n")


def read(source, root):
    return {s.study_id: s for s in read_studies(Studies(source=source, root=root), 0, root, Drops())}


def test_what_two_of_three_readers_say_is_a_label(tmp_path):
    vindr(tmp_path)
    found = read("vindr", tmp_path)
    assert {n: s.labels["vindr"] for n, s in found.items()} == {
        "a": ["Cardiomegaly"], "b": ["No finding"], "c": ["Rib fracture"],
    }  # fmt: skip
    assert found["c"].split == "test" and found["a"].images == (("train/a.dicom", "frontal"),)
    truth = study_labels(found["a"])
    assert (truth["Cardiomegaly"], truth["Fracture"], truth["No Finding"], truth["Edema"]) == (1, 0, 0, None)


def test_what_a_set_never_labels_is_unknown_and_teaches_nothing(tmp_path):
    nih(tmp_path)
    found = read("nih", tmp_path)
    truth = study_labels(found["00000000_000"])
    assert (truth["Lung Lesion"], truth["Pleural Effusion"], truth["Edema"], truth["Fracture"]) == (1, 1, 0, None)
    assert study_labels(found["00000002_000"])["No Finding"] == 0  # a hernia, that is none of the 14
    labels = torch.tensor([tower_labels(found["00000000_000"])])
    unknown = {name for name, x in zip(FINDINGS, labels[0].isnan(), strict=True) if x}
    assert unknown == {
        "Enlarged Cardiomediastinum", "Lung Opacity", "Pleural Other", "Fracture", "Support Devices",
    }  # fmt: skip
    logits = torch.linspace(-2, 2, len(FINDINGS)).reshape(1, -1).requires_grad_()
    loss, _ = TowerTask.loss(None, logits, [TowerExample(torch.zeros(1), labels[0])])
    known = ~labels[0].isnan()
    assert torch.allclose(loss, F.binary_cross_entropy_with_logits(logits[:, known], labels[:, known]))
    loss.sum().backward()
    assert torch.equal(logits.grad[0] != 0, known)


def test_they_teach_the_tower_and_are_never_sampled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    roads.kaggle(tmp_path)
    nih(tmp_path / "nih")
    (tmp_path / "both.yaml").write_text(
        "name: both\nseed: 0\npolicy: {model: tiny}\nwarmup: {}\nstudies:\n  sources:\n"
        "    - {source: iu_xray, root: iu_xray}\n    - {source: nih, root: nih}\n"
    )
    found = CliRunner().invoke(app, ["check", "both.yaml", *TINY, "sample.max_new_tokens=200"])
    assert found.exit_code == 0 and "27 images with labels and no report" in found.output
    learnt = []
    monkeypatch.setattr(warmup, "tower_examples", lambda *x: learnt.append(len(x[2])) or tower_examples(*x))
    for stage in ("studies", "warmup"):
        done = CliRunner().invoke(app, [stage, "both.yaml", "run_dir=run", *TINY, *SHORT])
        assert done.exit_code == 0, done.output
    rows = {
        name: [json.loads(line) for line in (tmp_path / f"run/{name}.jsonl").read_text().splitlines()]
        for name in ("studies", "studies_labelled")
    }
    assert len(rows["studies_labelled"]) == 27 and {s["source"] for s in rows["studies_labelled"]} == {"nih"}
    assert {s["split"] for s in rows["studies"] if s["source"] == "nih"} == {"test"}
    splits = Counter(s["split"] for s in rows["studies"])
    assert sum(splits.values()) == 63 and learnt == [splits["train"] + 27, splits["val"]]
