"""Damaged bytes never escape: a mutated image is decoded or refused with an ImageError, nothing else."""

import random

import numpy as np
import pytest
from PIL import Image

from chexalign.data.image_errors import ImageError
from chexalign.data.images import load_image

MUTATED = 1000


def _seeds(folder, film, write):
    eight = Image.fromarray((film >> 4).astype(np.uint8))
    for name in ("a.png", "a.jpg", "a.tif", "a.gif", "a.webp", "a.jp2", "a.bmp"):
        eight.save(folder / name)
    Image.fromarray(film).save(folder / "deep.png")
    Image.fromarray(film.astype(np.float32)).save(folder / "float.tif")
    eight.save(folder / "packed.tif", compression="tiff_lzw")
    eight.save(folder / "turned.jpg", exif=Image.Exif())
    write(folder / "plain.dcm", WindowCenter=2000, WindowWidth=3000)
    write(folder / "old.dcm", preamble=False)
    dataset = write(folder / "rle.dcm", SeriesDescription="PA")
    dataset.compress("1.2.840.10008.1.2.5")
    dataset.save_as(folder / "rle.dcm")
    return sorted(folder.iterdir())


def test_mutated_images_are_read_or_refused(tmp_path):
    pytest.importorskip("pydicom", reason="chexalign[dicom] is not installed")
    from tests.data.made_dicom import chest, write

    (tmp_path / "seeds").mkdir()
    draw, counts = random.Random(0), {"read": 0, "refused": 0}
    seeds = [(p.suffix, p.read_bytes()) for p in _seeds(tmp_path / "seeds", chest(), write)]
    for _ in range(MUTATED):
        suffix, data = draw.choice(seeds)
        mutated = bytearray(data)
        for _ in range(draw.choice((1, 1, 2, 4, 16))):
            whole = draw.random() < 0.2
            mutated[draw.randrange(len(mutated) if whole else min(len(mutated), 1400))] = draw.randrange(256)
        if draw.random() < 0.1:
            del mutated[draw.randrange(len(mutated)) :]
        (tmp_path / f"f{suffix}").write_bytes(mutated)
        try:
            image = load_image(tmp_path, f"f{suffix}")
        except ImageError as error:
            assert str(error).isprintable()
            counts["refused"] += 1
        else:
            assert image.mode == "RGB" and image.width and image.height
            counts["read"] += 1
    assert min(counts.values()) > MUTATED // 10
