import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from chexalign.data import decode_workers
from chexalign.data.decode_check import CheckedImage, Job, check_image, duplicates, looks, stamp
from chexalign.data.decode_workers import WORTH_IT, decoding
from chexalign.data.images import decoded, load_image
from chexalign.records import Study

FAULTY = """
import os, time
from chexalign.data import decode_workers as w
plain = w.check_image
w.check_image = lambda job: os.abort() if job.path == "crash.png" else time.sleep(60) if job.path == "hang.png" else plain(job)
w.serve()
"""


def film(seed=0, height=96, width=80):
    return np.random.default_rng(seed).integers(20, 236, (height, width), dtype=np.uint8)


@pytest.mark.parametrize(
    "pixels, found",
    [
        (np.full((64, 64), 128, np.uint8), ["blank"]),
        (np.where(np.arange(4096).reshape(64, 64) == 9, 255, 0).astype(np.uint8), ["blank"]),  # black but one hot pixel
        (np.where(np.arange(4096).reshape(64, 64) % 16 == 0, 128, 255).astype(np.uint8), ["saturated"]),  # 15 of 16
        (np.where(np.arange(4096).reshape(64, 64) % 8 == 0, 128, 255).astype(np.uint8), []),  # 7 of 8: below 90 %
        (film(), []),
    ],
)
def test_blank_and_saturated_films_are_told(pixels, found):
    assert looks(pixels) == found


def test_a_jpeg_is_checked_reduced_and_its_true_size_told(tmp_path):
    smooth = Image.fromarray(film()).resize((1024, 2048))
    smooth.save(tmp_path / "a.jpg")
    smooth.save(tmp_path / "b.jpg", comment=b"another header, the same film")
    whole = check_image(Job(str(tmp_path), "a.jpg"))
    assert (whole.width, whole.height) == load_image(tmp_path, "a.jpg").size == (1024, 2048)
    assert decoded((tmp_path / "a.jpg").read_bytes(), "a.jpg", "L", smallest=256).size == (256, 512)
    assert check_image(Job(str(tmp_path), "b.jpg")).digest == whole.digest
    cut = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("turned.jpg", "turned.tif"):
        smooth.save(tmp_path / name, exif=turned)
        found = check_image(Job(str(tmp_path), name))
        assert (found.width, found.height) == load_image(tmp_path, name).size == (2048, 1024)
    assert "cannot be decoded" in check_image(Job(str(tmp_path), "cut.jpg")).error


def test_what_was_found_is_kept_until_the_file_changes(tmp_path):
    Image.fromarray(film()).save(tmp_path / "a.png")
    found = check_image(Job(str(tmp_path), "a.png"))
    assert CheckedImage.from_json(found.to_json()) == found and found.key() == stamp(tmp_path, "a.png")
    Image.fromarray(film(1)).save(tmp_path / "a.png")
    assert found.key() != stamp(tmp_path, "a.png") and found.digest != check_image(Job(str(tmp_path), "a.png")).digest
    assert stamp(tmp_path, "../a") == ("../a", 0, 0) == stamp(tmp_path, "../a\0")[:0] + ("../a", 0, 0)


def test_the_same_pixels_in_two_splits_are_found():
    studies = [
        Study(f"s{k}", f"p{k}", split, images=((f"{k}.png", "frontal"),))
        for k, split in enumerate(("train", "train", "test", "val"))
    ]
    digests = {"0.png": "x", "1.png": "x", "2.png": "x", "3.png": "y"}
    assert [(a.study_id, b.study_id) for a, b in duplicates(studies, digests)] == [("s0", "s2")]


def test_workers_find_what_one_process_finds(tmp_path):
    for k in range(6):
        Image.fromarray(film(k)).save(tmp_path / f"{k}.png")
    (tmp_path / "text.png").write_text("no image")
    jobs = [Job(str(tmp_path), name) for name in ("0.png", "gone.png", "1.png", "text.png", "a\n\x1b.png", "2.png")]
    with decoding(WORTH_IT, processes=2) as check:
        together = check(jobs)
    assert together == [check_image(job) for job in jobs]
    assert [bool(c.error) for c in together] == [False, True, False, True, True, False]


def test_a_decoder_that_crashes_or_hangs_costs_one_file(tmp_path, monkeypatch):
    def start():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([sys.executable, "-c", FAULTY], **pipes)

    monkeypatch.setattr(decode_workers, "_start", start)
    monkeypatch.setattr(decode_workers, "PATIENCE", 5.0)
    names = ["a.png", "crash.png", "b.png", "hang.png", "c.png", "d.png"]
    for k, name in enumerate(names):
        Image.fromarray(film(k)).save(tmp_path / name)
    with decoding(WORTH_IT, processes=2) as check:
        found = check([Job(str(tmp_path), name) for name in names])
    assert [c.path for c in found] == names
    assert [c.error for c in found if c.path in ("crash.png", "hang.png")] == [
        "cannot be decoded (its decoder crashed); export it again",
        "cannot be decoded (its decoder took more than 5 s); export it again",
    ]
    assert not [c for c in found if c.error and c.path not in ("crash.png", "hang.png")]
