"""Image files → PIL images: PNG, JPEG and DICOM, confined to their root, with one clear line for what is broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from chexalign.errors import WorkError


class ImageError(WorkError):
    """This image cannot be used; the study that needs it is dropped and counted."""


def inside(root: Path, relative: str) -> Path:
    """root/relative, refused when it would leave the root (`..`, an absolute path, a link that points outside)."""
    path = (root / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ImageError(f"image path {relative!r} leaves {root}; give a path inside it")
    return path


def load_image(root: Path, relative: str) -> Image.Image:
    """Decode one image to 8-bit RGB. Raises ImageError naming the file and the remedy."""
    path = inside(root, relative)
    if not path.is_file():
        raise ImageError(f"image {path} is missing; restore it or remove its study")
    try:
        if path.suffix.lower() in (".dcm", ".dicom"):
            return Image.fromarray(_read_dicom(path)).convert("RGB")
        with Image.open(path) as image:
            image.load()
            return _to_8_bit(image).convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"image {path} cannot be decoded ({error}); export it again") from error


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit and float greyscale to 0–255 by its own range; PIL's convert would clip it to white."""
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "F"):
        return Image.fromarray(_window(np.asarray(image, dtype=np.float64)))
    return image


def _window(pixels: np.ndarray) -> np.ndarray:
    low, high = float(pixels.min()), float(pixels.max())
    return np.rint((pixels - low) * (255.0 / (high - low) if high > low else 0.0)).astype(np.uint8)


def _read_dicom(path: Path) -> np.ndarray:
    """One DICOM frame: rescale and VOI window applied, MONOCHROME1 inverted, scaled to 8 bits. Needs `chexalign[dicom]`."""
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError as error:
        raise ImageError(f"image {path} is DICOM; pip install 'chexalign[dicom]'") from error
    try:
        dataset = pydicom.dcmread(path)
        pixels = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    except (pydicom.errors.InvalidDicomError, AttributeError, RuntimeError, NotImplementedError) as error:
        raise ImageError(f"image {path} cannot be decoded ({' '.join(str(error).split())}); export it again") from error
    frame = _window(np.asarray(pixels, dtype=np.float64))
    return 255 - frame if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else frame
