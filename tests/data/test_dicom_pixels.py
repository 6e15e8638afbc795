import contextlib

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="chexalign[dicom] is not installed")

from pydicom.dataset import Dataset  # noqa: E402
from pydicom.pixels import apply_voi_lut  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from tests.data.made_dicom import chest, write  # noqa: E402

from chexalign.data.decode_grey import equalised  # noqa: E402
from chexalign.data.dicom_pixels import read_dicom, windowed  # noqa: E402
from chexalign.data.image_errors import ImageError  # noqa: E402
from chexalign.data.images import load_image  # noqa: E402


def shown(tmp_path, pixels=None, **header):
    """(grey, notes) of a made file, read back from its bytes."""
    write(tmp_path / "a.dcm", pixels, **header)
    grey, notes = read_dicom((tmp_path / "a.dcm").read_bytes())
    return grey.astype(int), notes


def test_monochrome1_is_the_exact_opposite(tmp_path):
    plain, _ = shown(tmp_path)
    opposite, _ = shown(tmp_path, 4095 - chest(), PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(plain, opposite) and plain.min() == 0 and plain.max() == 255


def test_inversion_comes_after_the_window(tmp_path):
    """An asymmetric window on MONOCHROME1: 1000 to 1400 is shown, low values bright."""
    grey, notes = shown(tmp_path, WindowCenter=1200, WindowWidth=400, PhotometricInterpretation="MONOCHROME1")
    assert not notes and (grey[chest() <= 1000] == 255).all() and (grey[chest() >= 1400] == 0).all()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_are_pydicoms(function):
    values = np.arange(0, 4096)
    header = Dataset()
    header.WindowCenter, header.WindowWidth, header.VOILUTFunction = 1800, 1501, function
    header.BitsStored, header.PixelRepresentation, header.PhotometricInterpretation = 12, 0, "MONOCHROME2"
    theirs = apply_voi_lut(values, header) / 4095 * 255
    assert np.abs(windowed(values, 1800, 1501, function) - theirs).max() < 1e-9


@pytest.mark.parametrize(
    "center, width",
    [(2048, 0), (2048, -5), (90000, 100), (5100, 2000), ("2048,0", "3000,0"), ("", "100"), ("x", "y"), (1e308, 1e308)],
)
def test_an_invalid_window_is_ignored_with_a_word(tmp_path, center, width):
    plain, _ = shown(tmp_path)
    write(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    with pydicom.config.disable_value_validation():
        dataset.add_new("WindowCenter", "LO", str(center))
        dataset.add_new("WindowWidth", "LO", str(width))
        dataset.save_as(tmp_path / "b.dcm")
    grey, notes = read_dicom((tmp_path / "b.dcm").read_bytes())
    assert np.array_equal(grey, plain) and notes == ["invalid window ignored"]


def test_the_first_valid_of_several_windows_is_taken(tmp_path):
    one, _ = shown(tmp_path, WindowCenter=1800, WindowWidth=1000)
    several, notes = shown(tmp_path, WindowCenter=[90000, 1800, 500], WindowWidth=[10, 1000, 500])
    assert np.array_equal(one, several) and not notes


def test_padding_is_black_and_counts_not(tmp_path):
    plain, _ = shown(tmp_path)
    padded = np.pad(chest(), ((0, 0), (20, 20)), constant_values=4095)
    for header in (
        {"PixelPaddingValue": 4095},
        {"PixelPaddingValue": 4090, "PixelPaddingRangeLimit": 4095},
        {},
    ):
        pixels = padded if header else np.where(padded == 4095, 60000, padded).astype(np.uint16)
        grey, _ = shown(tmp_path, pixels, **header)
        assert np.array_equal(grey[:, 20:-20], plain) and grey[:, :20].max() == 0
    opposite = np.where(padded == 4095, 4095, 4094 - padded).astype(np.uint16)
    grey, _ = shown(tmp_path, opposite, PixelPaddingValue=4095, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(grey[:, 20:-20], plain) and grey[:, :20].max() == 0


def test_a_hot_pixel_leaves_the_contrast_alone(tmp_path):
    plain, _ = shown(tmp_path)
    hot = chest()
    hot[50, 50] = 65535
    grey, _ = shown(tmp_path, hot)
    assert np.abs(np.delete(grey.ravel(), 50 * 80 + 50) - np.delete(plain.ravel(), 50 * 80 + 50)).max() <= 1


def test_slope_comes_before_the_window_and_a_slope_of_zero_is_ignored(tmp_path):
    direct, _ = shown(tmp_path, WindowCenter=2000, WindowWidth=1000)
    scaled, notes = shown(tmp_path, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=3899.5, WindowWidth=1999)
    assert np.abs(direct - scaled).max() <= 1 and not notes
    zero, notes = shown(tmp_path, RescaleSlope=0, RescaleIntercept=0)
    assert zero.max() == 255 and notes == ["invalid rescale slope ignored"]


def test_voi_lut_wins_over_the_window(tmp_path):
    table = (np.clip((np.arange(4096) - 1000) / 2000, 0, 1) * 4095).astype(np.uint16)
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 12], table.tobytes()
    item["LUTData"].VR = "OW"
    grey, notes = shown(tmp_path, VOILUTSequence=Sequence([item]), WindowCenter=100, WindowWidth=10)
    assert np.abs(grey - np.clip((chest().astype(int) - 1000) / 2000, 0, 1) * 255).max() < 1 and not notes


def test_signed_pixels_and_files_without_a_preamble(tmp_path):
    plain, _ = shown(tmp_path)
    signed, _ = shown(tmp_path, chest().astype(np.int16) - 2000)
    assert np.array_equal(plain, signed)
    write(tmp_path / "old", preamble=False)
    assert np.array_equal(np.asarray(load_image(tmp_path, "old").convert("L")), plain)


@pytest.mark.parametrize(
    "orientation, stored",
    [
        (["L", "F"], lambda a: a),
        (["R", "F"], lambda a: a[:, ::-1]),
        (["L", "H"], lambda a: a[::-1]),
        (["R", "H"], lambda a: a[::-1, ::-1]),
        (["F", "L"], lambda a: a.T),
        (["F", "R"], lambda a: a[:, ::-1].T),
        (["H", "L"], lambda a: a[::-1].T),
        (["H", "R"], lambda a: a[::-1, ::-1].T),
    ],
)
def test_films_stand_as_patient_orientation_says(tmp_path, orientation, stored):
    """`stored` lays the film so that its rows run to the first letter and its columns to the second (PS3.3 C.7.6.1.1.1)."""
    plain, _ = shown(tmp_path)
    grey, notes = shown(tmp_path, np.ascontiguousarray(stored(chest())), PatientOrientation=orientation)
    assert np.array_equal(grey, plain) and bool(notes) == (orientation != ["L", "F"])


def test_contradicting_tags_are_told_and_can_be_decided(tmp_path):
    plain, _ = shown(tmp_path)
    write(tmp_path / "a.dcm", 4095 - chest(), PresentationLUTShape="INVERSE")
    data = (tmp_path / "a.dcm").read_bytes()
    grey, notes = read_dicom(data)
    assert np.array_equal(grey, plain) and "contradict" in notes[0]
    assert not np.array_equal(read_dicom(data, follow_shape=False)[0], plain)


def test_equalised_spreads_the_levels_evenly(tmp_path):
    write(tmp_path / "a.dcm")
    grey, _ = read_dicom((tmp_path / "a.dcm").read_bytes(), equalise=True)
    assert np.abs(np.percentile(grey, [25, 50, 75]) - [63.75, 127.5, 191.25]).max() < 4
    by_hand = equalised(np.array([[0, 0, 10, 200]], dtype=np.uint8))  # cdf 2, 3, 4 of 4: 0, 127.5, 255
    assert by_hand.tolist() == [[0, 0, 128, 255]]


def test_what_is_no_single_image_gets_one_line(tmp_path):
    write(tmp_path / "two.dcm", np.stack([chest(), chest()]), NumberOfFrames=2, Rows=96, Columns=80)
    write(tmp_path / "none.dcm", PixelData=None)
    write(tmp_path / "huge.dcm", Rows=65535, Columns=65535)
    write(tmp_path / "cut.dcm")
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "cut.dcm").read_bytes()[:5000])
    for name, message in (
        ("two.dcm", "holds 2 frames"),
        ("none.dcm", "no pixel data"),
        ("huge.dcm", "at most 100 million"),
        ("cut.dcm", "less than expected"),
    ):
        with pytest.raises(ImageError, match=message) as error:
            load_image(tmp_path, name)
        assert str(error.value).startswith(f"image {name} cannot be decoded") and str(error.value).isprintable()


def test_decoders_say_nothing_of_the_patient(tmp_path, capfd):
    write(tmp_path / "a.dcm", PatientAge="012Y", WindowCenter=1234)
    data = (tmp_path / "a.dcm").read_bytes().replace(b"012Y", b"Doe^").replace(b"AS\x04", b"AS\x03", 1)
    (tmp_path / "a.dcm").write_bytes(data.replace(b"1234", b"Jane"))
    with contextlib.suppress(ImageError):
        load_image(tmp_path, "a.dcm")
    assert capfd.readouterr() == ("", "")
