"""docs/img/dicom.png: a made-up DICOM film as minimum and maximum show it, as it is read, and equalised.

    python benchmarks/dicom_picture.py docs/img/dicom.png

The film is a drawn phantom in 12 bits, MONOCHROME1, with a border of PixelPaddingValue, one hot pixel, a window of width 0
and its rows running to the feet. Nothing in it is of a person.
"""

import io
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from chexalign.data.dicom_pixels import read_dicom
from chexalign.data.phantom import make_study

SIDE, BORDER = 256, 24


def made_up() -> bytes:
    """The DICOM file's bytes."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    _study, drawn = make_study(seed=3, index=4, image_size=SIDE)
    film = 1500 - drawn.astype(np.int64) * 3  # MONOCHROME1: low values are bright
    film[40, 60] = 4000  # a hot pixel
    stored = np.pad(film, BORDER, constant_values=4095)[:, ::-1].T.astype(
        np.uint16
    )  # rows to the feet, columns to the right
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        DigitalXRayImageStorageForPresentation,
        generate_uid(),
    )
    dataset = FileDataset("film", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 1, 0, "MONOCHROME1"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelPaddingValue, dataset.PatientOrientation = 4095, ["F", "R"]
    dataset.WindowCenter, dataset.WindowWidth = 2048, 0
    dataset.PixelData, file = stored.tobytes(), io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def by_extremes(data: bytes) -> np.ndarray:
    """Stored values scaled by their minimum and maximum, as a viewer without rules would."""
    import pydicom

    stored = pydicom.dcmread(io.BytesIO(data)).pixel_array.astype(float)
    return 255 * (stored - stored.min()) / (stored.max() - stored.min())


def main() -> None:
    data = made_up()
    shown = {
        "stored values, minimum to maximum": by_extremes(data),
        "as it is read": read_dicom(data)[0],
        "with equalise: true": read_dicom(data, equalise=True)[0],
    }
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, (title, pixels) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
    figure.savefig(Path(sys.argv[1]) if len(sys.argv) > 1 else "dicom.png", dpi=100)


if __name__ == "__main__":
    main()
