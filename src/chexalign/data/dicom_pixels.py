"""One DICOM image → 8 bits: modality LUT, then VOI LUT or window, then scale, then inversion (PS3.3 C.7.6.3, C.11)."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import numpy as np

from chexalign.data.decode import check_size
from chexalign.data.decode_grey import border_padding, equalised, levels, robust_range, rounded, stretched
from chexalign.data.dicom_header import inverted, number, text, turns, value, warnings_of
from chexalign.data.image_errors import ImageError, decoding_failures

LEAST_INSIDE = 0.01  # share of the pixels that a window must hold to be one; our choice


def parse(file: BinaryIO, pixels: bool = True) -> Any:
    """The dataset of this file, with or without preamble. Needs `chexalign[dicom]`; raises what pydicom raises."""
    try:
        import pydicom
    except ImportError as error:
        raise ImageError("an image is DICOM; pip install 'chexalign[dicom]'") from error
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    return pydicom.dcmread(file, force=True, stop_before_pixels=not pixels)


def read_dicom(data: bytes, equalise: bool = False, follow_shape: bool = True) -> tuple[np.ndarray, list[str]]:
    """uint8 (h, w), or (h, w, 3) for a colour copy, standing upright; and what is doubtful about it.

    Raises ValueError for several frames, no pixels or impossible sizes, and what the decoders raise for damage.
    """
    dataset = parse(io.BytesIO(data))
    pixels, notes = stored_pixels(dataset), warnings_of(dataset)
    if pixels.ndim == 3:
        if pixels.dtype != np.uint8:
            raise ValueError("colour of more than 8 bits")
        grey, notes = pixels, [*notes, "colour: a copy, not the detector's image"]
    else:
        grey, more = shown_grey(pixels, dataset, inverted(dataset, follow_shape))
        notes += more
        grey = equalised(grey) if equalise else grey
    swap, flip, mirror = turns(dataset)
    grey = grey.swapaxes(0, 1) if swap else grey
    grey = grey[::-1] if flip else grey
    return np.ascontiguousarray(grey[:, ::-1] if mirror else grey), notes


def stored_pixels(dataset: Any) -> np.ndarray:
    """The stored values (h, w), or colours (h, w, 3), as the transfer syntax unpacks them."""
    if value(dataset, "Rows") is None or value(dataset, "Columns") is None:
        raise ValueError("no Rows or Columns: not an image")
    frames, samples = number(dataset, "NumberOfFrames") or 1, number(dataset, "SamplesPerPixel") or 1
    check_size(int(dataset.Columns), int(dataset.Rows))
    if frames > 1:
        raise ValueError(f"it holds {frames:.0f} frames: which one is meant is not known")
    if samples not in (1, 3) or text(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
        raise ValueError("neither greyscale nor RGB")
    if "PixelData" not in dataset:
        raise ValueError("no pixel data")
    if (
        "TransferSyntaxUID" not in dataset.file_meta
    ):  # older exports have no file meta: what they hold was parsed as it lies
        little, implicit = dataset.original_encoding[1], dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = _syntax(bool(implicit), bool(little))
    pixels = np.asarray(dataset.pixel_array)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"pixels of shape {pixels.shape}")
    return pixels


def _syntax(implicit: bool, little: bool) -> str:
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def shown_grey(pixels: np.ndarray, dataset: Any, invert: bool) -> tuple[np.ndarray, list[str]]:
    """Stored values (h, w) → uint8, and which settings were ignored. Padding counts not in the range and is black."""
    stored, counts, index = levels(pixels)
    padding = _padding(dataset, stored) | border_padding(stored, counts, index)
    if not counts[~padding].sum():
        padding = np.zeros(len(stored), dtype=bool)
    real, notes = _modality(dataset, stored)
    used = ~padding & (counts > 0)
    grey, more = _voi(dataset, real, counts, used)
    if invert:
        grey = 255.0 - grey
    return np.where(padding, np.uint8(0), rounded(grey))[index], notes + more


def _padding(dataset: Any, stored: np.ndarray) -> np.ndarray:
    """Which stored values are PixelPaddingValue, up to PixelPaddingRangeLimit where that is given."""
    first = number(dataset, "PixelPaddingValue")
    if first is None:
        return np.zeros(len(stored), dtype=bool)
    if number(dataset, "PixelRepresentation") == 0 and first < 0:
        first += 65536  # written as a signed number beside unsigned pixels
    last = number(dataset, "PixelPaddingRangeLimit")
    low, high = sorted((first, first if last is None else last))
    return (stored >= low) & (stored <= high)


def _modality(dataset: Any, stored: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Stored → real values: the modality LUT, or slope and intercept; a slope of 0 or no number is ignored."""
    if value(dataset, "ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut

        try:
            return np.asarray(apply_modality_lut(stored.astype(np.int64), dataset), dtype=np.float64), []
        except decoding_failures():
            return stored, ["unreadable modality LUT ignored"]
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    if slope == 0 or (slope is None and value(dataset, "RescaleSlope") is not None):
        return stored, ["invalid rescale slope ignored"]
    return stored * (1.0 if slope is None else slope) + (intercept or 0.0), []


def _voi(dataset: Any, real: np.ndarray, counts: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Real values (k,) → grey 0 to 255: VOI LUT, else the first valid window, else the robust range of what is used."""
    notes: list[str] = []
    if value(dataset, "VOILUTSequence"):
        from pydicom.pixels import apply_voi

        try:
            out = np.asarray(apply_voi(np.rint(real).astype(np.int64), dataset), dtype=np.float64)
            if out[used].max() > out[used].min():
                low, high = _lut_range(dataset)
                return stretched(out, low, high), notes
        except decoding_failures():
            pass
        notes.append("invalid VOI LUT ignored")
    if value(dataset, "WindowCenter") is not None or value(dataset, "WindowWidth") is not None:
        function = text(dataset, "VOILUTFunction").upper() or "LINEAR"
        for center, width in _windows(dataset):
            if width >= (1 if function == "LINEAR" else 1e-9):
                inside = used & (np.abs(real - center) <= width / 2)
                if counts[inside].sum() >= LEAST_INSIDE * counts[used].sum():
                    return windowed(real, center, width, function), notes
        notes.append("invalid window ignored")
    order = np.argsort(real[used], kind="stable")
    return stretched(real, *robust_range(real[used][order], counts[used][order])), notes


def _lut_range(dataset: Any) -> tuple[float, float]:
    """Smallest and largest output of the VOI LUT: its own entries, for many say 16 bits and use 12."""
    item = dataset.VOILUTSequence[0]
    table = item.LUTData
    if isinstance(table, bytes):
        table = np.frombuffer(table, dtype="<u2" if len(table) >= 2 * (item.LUTDescriptor[0] or 65536) else "u1")
    return float(np.min(table)), float(np.max(table))


def _windows(dataset: Any) -> list[tuple[float, float]]:
    """The (center, width) pairs that are numbers, in their order."""
    pairs = []
    for center, width in zip(_several(dataset, "WindowCenter"), _several(dataset, "WindowWidth"), strict=False):
        try:
            pair = float(center), float(width)
        except (TypeError, ValueError):
            continue
        if all(abs(v) < float("inf") for v in pair):
            pairs.append(pair)
    return pairs


def _several(dataset: Any, keyword: str) -> list[Any]:
    found = value(dataset, keyword)
    if found is None or isinstance(found, str | int | float):
        return [found]
    return list(found)


def windowed(real: np.ndarray, center: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Real values → 0 to 255 through a window (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    LINEAR: 255 ((x - (c - .5)) / (w - 1) + .5); LINEAR_EXACT: 255 ((x - c) / w + .5); SIGMOID: 255 / (1 + exp(-4 (x - c) / w)).
    """
    if function == "SIGMOID":
        return 255.0 / (1.0 + np.exp(np.clip(-4.0 * (real - center) / width, -700, 700)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1.0
    if width == 0:  # a step
        return np.where(real <= center, 0.0, 255.0)
    return np.clip(((real - center) / width + 0.5) * 255.0, 0.0, 255.0)
