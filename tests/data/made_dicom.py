"""DICOM files made up for the tests: a drawn chest in 12 bits with the header that a test asks for."""

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid


def chest(height=96, width=80):
    """uint16 (height, width) in 12 bits: two dark lungs, a bright spine, a mark at the upper left, none symmetric."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    film = 2200 + 600 * y
    for centre in (0.28, 0.72):
        film -= 1500 * np.exp(-(((x - centre) / 0.14) ** 2) - ((y - 0.45) / 0.28) ** 2)
    film += 900 * np.exp(-(((x - 0.5) / 0.06) ** 2)) + 500 * np.exp(
        -(((x - 0.6) / 0.12) ** 2) - ((y - 0.65) / 0.15) ** 2
    )
    film[4:10, 4:14] = 3900
    return np.clip(np.rint(film), 0, 4095).astype(np.uint16)


def write(path, pixels=None, preamble=True, **header):
    """Write one file and give its dataset; `header` sets or, with None, removes elements."""
    pixels = chest() if pixels is None else pixels
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Doe^Jane", "MRN-1234", "19501231"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.AccessionNumber, dataset.Modality, dataset.SeriesNumber = "ACC-77", "DX", 1
    dataset.PresentationIntentType, dataset.ViewPosition = "FOR PRESENTATION", "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.Rows, dataset.Columns = pixels.shape[-2:] if pixels.ndim == 2 or pixels.shape[-1] != 3 else pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for keyword, value in header.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    if preamble:
        dataset.save_as(path, enforce_file_format=True)
    else:
        del dataset.file_meta, dataset.preamble
        pydicom.dcmwrite(path, dataset, implicit_vr=True, little_endian=True, enforce_file_format=False)
    return dataset
