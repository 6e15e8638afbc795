import numpy as np
import pytest
from PIL import Image

from chexalign.data.images import ImageError, load_image


def test_png_and_jpeg_become_8_bit_rgb(tmp_path):
    for name in ("a.png", "a.jpg"):
        Image.fromarray(np.full((20, 30), 77, dtype=np.uint8)).save(tmp_path / name)
        image = load_image(tmp_path, name)
        assert image.mode == "RGB" and image.size == (30, 20) and image.getpixel((0, 0)) == (77, 77, 77)


def test_16_bit_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.linspace(0, 4095, 400).reshape(20, 20).astype(np.uint16)).save(tmp_path / "deep.png")
    values = np.asarray(load_image(tmp_path, "deep.png").convert("L"))
    assert values.min() == 0 and values.max() == 255 and 120 < values.mean() < 135


@pytest.mark.parametrize("path", ["../outside.png", "/etc/passwd", "link.png", "a/../../outside.png"])
def test_paths_stay_inside_their_root(tmp_path, path):
    root = tmp_path / "root"
    root.mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "outside.png")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(ImageError, match="leaves"):
        load_image(root, path)


def test_missing_truncated_and_foreign_files_get_one_line(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:700])
    (tmp_path / "text.png").write_text("no image")
    for name, message in (
        ("gone.png", "is missing"),
        ("cut.jpg", "cannot be decoded"),
        ("text.png", "cannot be decoded"),
    ):
        with pytest.raises(ImageError, match=message) as error:
            load_image(tmp_path, name)
        assert name in str(error.value) and "\n" not in str(error.value)


def test_real_dicom_is_inverted_and_windowed(shared):
    pytest.importorskip("pydicom", reason="chexalign[dicom] is not installed")
    image = load_image(shared / "data/other_cxr/dicom", "RG1_J2KI_chest_pa_mono1.dcm")
    pixels = np.asarray(image.convert("L")).astype(float)
    height, width = pixels.shape
    lung = pixels[int(height * 0.35) : int(height * 0.5), int(width * 0.25) : int(width * 0.35)].mean()
    spine = pixels[int(height * 0.55) : int(height * 0.7), int(width * 0.47) : int(width * 0.53)].mean()
    assert lung < spine  # MONOCHROME1 read as it is would show dark bones and bright lungs
