"""Grey levels of 16-bit, float and DICOM pixels → 0 to 255, by rules that one hot pixel or a border cannot upset.

Every step from stored value to shown grey is a function of the value alone, so it is worked out once per *level* (a value
that occurs) and then looked up: exact, and fast on films of many megapixels.
"""

from __future__ import annotations

import math

import numpy as np

CUT = 0.001  # share of pixels left out at each end of the range; our choice
SMALLEST = 100  # pixels below which nothing is cut; our choice
GAP = 0.05  # of the range of the rest: how far a border's value must lie outside to be padding; our choice
TABLE = 1 << 20  # widest range of whole numbers that gets one level per value


def levels(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (h, w) → values (k,) rising, counts (k,), index (h, w) with values[index] == pixels. NaN is the last value."""
    if np.issubdtype(pixels.dtype, np.integer):
        low, high = int(pixels.min()), int(pixels.max())
        if high - low < TABLE:
            index = pixels.astype(np.int64) - low if high - low > 65535 else (pixels.astype(np.int32) - low)
            return np.arange(low, high + 1, dtype=np.float64), np.bincount(index.ravel(), minlength=1), index
    values, index, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    return values.astype(np.float64), counts, index.reshape(pixels.shape)


def robust_range(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """The values between which all but CUT of the pixels lie at each end; the full range where that leaves nothing.

    At least one pixel is cut at each end of an image of SMALLEST pixels or more: one hot pixel never sets the range.
    """
    present = counts > 0
    values, counts = values[present], counts[present]
    total = int(counts.sum())
    cut = math.ceil(total * CUT) if total >= SMALLEST else 0
    below = np.cumsum(counts)
    low = float(values[np.searchsorted(below, cut, side="right")])
    high = float(values[np.searchsorted(below, total - cut, side="left")])
    return (low, high) if high > low else (float(values[0]), float(values[-1]))


def border_padding(values: np.ndarray, counts: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Which levels (k,) are padding: a smallest or largest value that fills a whole edge and lies far outside the rest."""
    padding = np.zeros(len(values), dtype=bool)
    present = np.flatnonzero((counts > 0) & np.isfinite(values))
    if len(present) < 3:
        return padding
    edges = {int(e[0]) for e in (index[0], index[-1], index[:, 0], index[:, -1]) if (e == e[0]).all()}
    for end, rest in ((present[0], present[1:]), (present[-1], present[:-1])):
        if end in edges:
            low, high = robust_range(values[rest], counts[rest])
            padding[end] = values[end] < low - GAP * (high - low) or values[end] > high + GAP * (high - low)
    return padding


def stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values → 0 to 255 (float), low to 0 and high to 255, clipped: 255 (v - low) / (high - low)."""
    if not high > low:
        return np.zeros(len(values))
    return np.clip((values - low) * 255.0 / (high - low), 0.0, 255.0)


def rounded(grey: np.ndarray) -> np.ndarray:
    """0 to 255 (float) → uint8, halves upwards."""
    return np.floor(grey + 0.5).astype(np.uint8)


def eight_bit(pixels: np.ndarray) -> np.ndarray:
    """Greyscale (h, w) of any type → uint8 by its robust range. Padding, NaN and infinite pixels count not and are black.

    Raises ValueError where no pixel is finite.
    """
    values, counts, index = levels(pixels)
    usable = np.isfinite(values) & ~border_padding(values, counts, index)
    if not counts[usable].sum():
        raise ValueError("no pixel holds a finite number")
    grey = np.zeros(len(values))
    grey[usable] = stretched(values[usable], *robust_range(values[usable], counts[usable]))
    return rounded(grey)[index]


def equalised(image: np.ndarray) -> np.ndarray:
    """Histogram equalisation of uint8 (h, w): 255 (cdf - cdf_min) / (n - cdf_min), as MIMIC-CXR-JPG's images were made.

    Source: Johnson et al. 2019, arXiv:1901.07042, Methods.
    """
    below = np.cumsum(np.bincount(image.ravel(), minlength=256))
    first = below[np.flatnonzero(below)[0]]
    return rounded(np.clip((below - first) * 255.0 / max(1, image.size - first), 0, 255))[image]
