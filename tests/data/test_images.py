import io
import os

import numpy as np
import pytest
from PIL import Image, ImageOps

from chexalign.data.image_errors import ImageError
from chexalign.data.images import load_image


def grey(root, name):
    return np.asarray(load_image(root, name).convert("L")).astype(int)


def ramp(dtype=np.uint16, low=1000, high=3000, side=64):
    return np.linspace(low, high, side * side).reshape(side, side).astype(dtype)


def test_png_and_jpeg_become_8_bit_rgb(tmp_path):
    for name in ("a.png", "a.jpg"):
        Image.fromarray(np.full((20, 30), 77, dtype=np.uint8)).save(tmp_path / name)
        image = load_image(tmp_path, name)
        assert image.mode == "RGB" and image.size == (30, 20) and image.getpixel((0, 0)) == (77, 77, 77)


def test_8_bit_images_come_out_as_pil_reads_them(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for name, image in (
        ("grey.png", Image.fromarray(noise[..., 0])),
        ("grey.jpg", Image.fromarray(noise[..., 0])),
        ("colour.jpg", Image.fromarray(noise)),
        ("palette.png", Image.fromarray(noise).quantize(16)),
        ("cmyk.jpg", Image.fromarray(noise).convert("CMYK")),
    ):
        image.save(tmp_path / name)
        with Image.open(tmp_path / name) as plain:
            assert np.array_equal(np.asarray(load_image(tmp_path, name)), np.asarray(plain.convert("RGB")))


def test_16_bit_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.linspace(0, 4095, 400).reshape(20, 20).astype(np.uint16)).save(tmp_path / "deep.png")
    values = grey(tmp_path, "deep.png")
    assert values.min() == 0 and values.max() == 255 and 120 < values.mean() < 135


def test_a_hot_pixel_and_a_border_leave_the_contrast_alone(tmp_path):
    plain = ramp()
    Image.fromarray(plain).save(tmp_path / "plain.png")
    hot = plain.copy()
    hot[30, 30] = 65535
    Image.fromarray(hot).save(tmp_path / "hot.png")
    for value in (0, 65535):
        Image.fromarray(np.pad(plain, 12, constant_values=value)).save(tmp_path / f"border{value}.png")
    clean = grey(tmp_path, "plain.png")
    away = np.ones_like(clean, dtype=bool)
    away[30, 30] = False
    assert np.abs(grey(tmp_path, "hot.png") - clean)[away].max() <= 1
    for value in (0, 65535):
        bordered = grey(tmp_path, f"border{value}.png")
        assert np.abs(bordered[12:-12, 12:-12] - clean).max() <= 1 and bordered[0].max() == 0


def test_float_pixels_that_are_no_numbers_are_black(tmp_path):
    plain = ramp(np.float32)
    broken = plain.copy()
    broken[5, 5], broken[6, 6], broken[7, 7] = np.nan, np.inf, -np.inf
    Image.fromarray(plain).save(tmp_path / "plain.tif")
    Image.fromarray(broken).save(tmp_path / "broken.tif")
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "none.tif")
    clean, mended = grey(tmp_path, "plain.tif"), grey(tmp_path, "broken.tif")
    away = np.isfinite(broken)
    assert np.abs(mended - clean)[away].max() <= 1 and mended[~away].max() == 0
    with pytest.raises(ImageError, match="finite"):
        load_image(tmp_path, "none.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "deep.tif"])
def test_images_stand_as_exif_says(tmp_path, name, orientation):
    drawn = np.zeros((16, 24), dtype=np.float32 if name == "deep.tif" else np.uint8)
    drawn[:4], drawn[:, :6] = 255, 128
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(drawn).save(tmp_path / name, exif=exif)
    with Image.open(io.BytesIO((tmp_path / name).read_bytes())) as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored)).astype(int)
    assert upright.shape == ((24, 16) if orientation > 4 else (16, 24))
    assert np.abs(grey(tmp_path, name) - upright).max() <= 1


def test_one_file_is_one_radiograph(tmp_path):
    pages = [Image.fromarray(np.full((16, 16), v, dtype=np.uint8)) for v in (10, 200)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "moving.png", format="GIF", save_all=True, append_images=pages[1:])
    for name in ("pages.tif", "moving.png"):
        with pytest.raises(ImageError, match="holds 2 frames"):
            load_image(tmp_path, name)
    small = pages[1].resize((4, 4))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    pages[0].save(tmp_path / "with_thumbnail.tif", save_all=True, append_images=[small])
    assert grey(tmp_path, "with_thumbnail.tif").max() == 10


@pytest.mark.parametrize("path", ["../outside.png", "/etc/passwd", "link.png", "a/../../outside.png", "dev.png"])
def test_paths_stay_inside_their_root(tmp_path, path):
    root = tmp_path / "root"
    root.mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "outside.png")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "dev.png").symlink_to("/dev/zero")
    with pytest.raises(ImageError, match="leaves"):
        load_image(root, path)


@pytest.mark.parametrize(
    "path", ["a\0b.png", "x" * 5000, "x/" * 3000, "loop.png", "fifo.png", "", "x\n\x1b[31mRED.png"]
)
def test_odd_paths_get_one_clean_line(tmp_path, path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "fifo.png")
    with pytest.raises(ImageError) as error:
        load_image(tmp_path, path)
    assert str(error.value).isprintable() and len(str(error.value)) < 500
    assert str(tmp_path) not in str(error.value)  # a folder's name may be a patient's


def test_an_absolute_path_inside_the_root_is_read(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    assert load_image(tmp_path, str(tmp_path / "a.png")).size == (4, 4)


def test_missing_truncated_and_foreign_files_get_one_line(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:700])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "drawing.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    )  # would start Ghostscript
    for name, message in (
        ("gone.png", "is missing"),
        ("cut.jpg", "cannot be decoded"),
        ("text.png", "it is none of PNG"),
        ("drawing.png", "it is none of PNG"),
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
