import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from chexalign.data import decode_workers
from chexalign.recipe.recipe import Recipe
from chexalign.run.folder import Run, forget, open_run
from chexalign.stages import study_images
from chexalign.stages.check import check_recipe
from chexalign.stages.studies import make_studies


def own(tmp_path, n=8, **settings):
    """A recipe over `n` own studies with an image each, alternately of training and test."""
    root = tmp_path / "own"
    root.mkdir()
    rows = []
    for k in range(n):
        pixels = np.random.default_rng(k).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{k}.png")
        row = {"study_id": f"s{k}", "split": ("train", "test")[k % 2], "findings": "Clear."}
        rows.append(row | {"images": [{"path": f"{k}.png", "view": "frontal"}]})
    (root / "studies.jsonl").write_text("\n".join(map(json.dumps, rows)))
    studies = {"source": "jsonl", "root": root, **settings}
    return Recipe(name="own", run_dir=tmp_path / "run", studies=studies, policy={"model": "other"}), root


def test_a_killed_check_goes_on_where_it_stopped(tmp_path, monkeypatch):
    recipe, root = own(tmp_path)
    plain, looked = decode_workers.check_image, []

    def dying(job):
        if len(looked) == 5:
            raise KeyboardInterrupt
        looked.append(job.path)
        return plain(job)

    monkeypatch.setattr(study_images, "BATCH", 2)
    monkeypatch.setattr(decode_workers, "check_image", dying)
    with pytest.raises(KeyboardInterrupt):
        make_studies(open_run(recipe))
    Image.new("L", (32, 32), 99).save(root / "1.png")  # changed since: looked at again
    again = []
    monkeypatch.setattr(decode_workers, "check_image", lambda job: again.append(job.path) or plain(job))
    run = Run(recipe, tmp_path / "run", {"stages": {}})
    assert make_studies(run).rows_out == 8
    assert looked == [f"{k}.png" for k in range(5)] and again == ["1.png", "4.png", "5.png", "6.png", "7.png"]
    assert not list(run.dir.glob("images_checked*"))
    forget(run, "studies")
    assert not [p for p in run.dir.iterdir() if p.name != "manifest.json"]


def test_only_as_many_as_wanted_are_looked_at(tmp_path, monkeypatch):
    recipe, root = own(tmp_path, n=40)
    recipe = recipe.model_copy(update={"studies": recipe.studies.model_copy(update={"n": 10})})
    for k in (0, 1, 2):
        (root / f"{k}.png").write_text("no image")
    plain, looked = decode_workers.check_image, []
    monkeypatch.setattr(decode_workers, "check_image", lambda job: looked.append(job.path) or plain(job))
    result = make_studies(open_run(recipe))
    assert result.rows_out == 10 and len(looked) == 10 + result.dropped.get("unusable image", 0)


def test_doubts_and_copies_across_splits_are_named(tmp_path):
    recipe, root = own(tmp_path)
    Image.new("L", (32, 32), 99).save(root / "0.png")
    Image.open(root / "2.png").save(root / "3.tif")
    (root / "3.tif").rename(root / "3.png")  # the same pixels in another file format, of test
    run = open_run(recipe)
    assert make_studies(run).rows_out == 8
    assert run.path("studies_doubts.txt").read_text().splitlines() == [
        "studies.jsonl:1: study s0: image 1 of 1: blank",
        "s2 (train) and s3 (test) show the same image",
    ]
    notes = json.loads(run.path("studies_counts.json").read_text())["notes"]
    assert notes == {
        "images: blank; named in studies_doubts.txt": 1,
        "the same image in two splits, which lets test see training; named in studies_doubts.txt": 1,
    }


def test_check_tells_of_films_that_show_nothing(tmp_path):
    recipe, root = own(tmp_path)
    Image.new("L", (32, 32), 255).save(root / "4.png")
    found = [line for fine, line in check_recipe(recipe) if not fine]
    assert found[0] == "images: 1 of 8 decoded are doubtful, first: studies.jsonl:5: study s4: image 1: blank"


def test_what_a_command_writes_is_its_owners_alone(tmp_path):
    recipe, root = own(tmp_path)
    command = ["studies", "tiny", "studies.source=jsonl", f"studies.root={root}", f"run_dir={tmp_path / 'mine'}"]
    code = "import os, sys; os.umask(0); from chexalign.cli import main; main()"
    rows = (root / "studies.jsonl").read_text().replace('"s7", "split": "test"', '"s7", "split": "val"')
    (root / "studies.jsonl").write_text(rows)
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modes = {p.name: p.stat().st_mode & 0o777 for p in [tmp_path / "mine", *(tmp_path / "mine").rglob("*")]}
    assert modes["mine"] == 0o700 and modes["studies.jsonl"] == 0o600
    assert set(modes.values()) == {0o700, 0o600}


@pytest.mark.parametrize("decoded", [True, False])
def test_a_missing_image_is_noticed_without_decoding_too(decoded, tmp_path):
    recipe, root = own(tmp_path, check_images=decoded)
    (root / "2.png").unlink()
    (root / "3.png").write_bytes(b"no image")
    run = open_run(recipe)
    assert make_studies(run).dropped == {"image missing": 1} | ({"unusable image": 1} if decoded else {})
    assert "study s2: image 1 of 1 is missing" in run.path("studies_dropped.txt").read_text()


@pytest.mark.parametrize(("model", "kept"), [("llava-med", 8), ("other", 7)])
def test_a_broken_image_that_the_model_is_not_shown_costs_no_study(model, kept, tmp_path):
    recipe, root = own(tmp_path)
    rows = [json.loads(line) for line in (root / "studies.jsonl").read_text().splitlines()]
    for k, row in enumerate(rows):
        row["images"].append({"path": f"{(k + 2) % 8 if k else 'gone'}.png", "view": "lateral"})
    (root / "studies.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = recipe.model_copy(update={"policy": recipe.policy.model_copy(update={"model": model})})
    run = open_run(recipe)
    assert make_studies(run).rows_out == kept
    left = {s.study_id: len(s.images) for s in run.studies()}
    assert left == {f"s{k}": 2 if k else 1 for k in range(8) if k or kept == 8}
