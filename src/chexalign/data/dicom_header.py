"""What a DICOM header says of an image beside its pixels: which view, which way up, made for whom, and what is doubtful."""

from __future__ import annotations

import re
from typing import Any

from chexalign.data.image_errors import decoding_failures

IMAGE_MODALITIES = ("CR", "DX", "RG", "XR", "DR", "RF", "OT", "SC", "")  # OT and SC: warned of; "" where it is not said
COPIED = ("SC", "OT")  # scans and screenshots
FRONTAL_CODES = {"399348003", "399173006", "272479007", "R-10206", "R-10214"}  # SNOMED: AP and PA
LATERAL_CODES = {"399198007", "399321006", "399006003", "R-10232", "R-10236", "R-10228"}
FRONTAL_WORDS = re.compile(
    r"\b(p\.?a|a\.?p|frontal|postero-?anterior|antero-?posterior|dv|vd|thorax p\.?a|liegend|bed)\b"
)
LATERAL_WORDS = re.compile(r"\b(lat|ll|rl|lateral|laterale|seitlich|seitl|profil|profile|perfil)\b")
UPSIDE = {"H": "F", "F": "H", "L": "R", "R": "L", "A": "P", "P": "A"}


def value(header: Any, keyword: str) -> Any:
    """One element; None where it is absent, empty, or cannot be read."""
    try:
        found = header.get(keyword)
    except decoding_failures():
        return None
    return None if found is None or (isinstance(found, str) and not found.strip()) else found


def text(header: Any, keyword: str) -> str:
    """One element as text without the blanks around it, "" where there is none."""
    found = value(header, keyword)
    try:
        return "" if found is None else str(found).strip()
    except decoding_failures():
        return ""


def number(header: Any, keyword: str) -> float | None:
    """One element, the first of several, as a finite number; None where it is none ("2048,0")."""
    found = value(header, keyword)
    try:
        first = found if isinstance(found, str | int | float) else found[0]
        result = float(first)
    except decoding_failures():
        return None
    return result if abs(result) < float("inf") else None


def view_of(header: Any) -> tuple[str, str]:
    """(view, where it was read). View: frontal, lateral, other, or unknown where four elements in turn do not tell."""
    position = text(header, "ViewPosition").upper()
    if position:
        return _by_position(position), "ViewPosition"
    for item in value(header, "ViewCodeSequence") or ():
        code, meaning = text(item, "CodeValue"), text(item, "CodeMeaning")
        if view := _by_code(code) or _by_words(meaning):
            return view, "ViewCodeSequence"
    for keyword in ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription"):
        if view := _by_words(text(header, keyword)):
            return view, keyword
    across, _down = orientation(header)
    if across in ("L", "R"):
        return "frontal", "PatientOrientation"
    if across in ("A", "P"):
        return "lateral", "PatientOrientation"
    return "unknown", ""


def _by_position(position: str) -> str:
    first = position.split()[0]
    if first in ("AP", "PA") or position in (
        "POSTERO_ANTERIOR",
        "POSTEROANTERIOR",
        "ANTEROPOSTERIOR",
        "ANTERO_POSTERIOR",
    ):
        return "frontal"
    return "lateral" if first in ("LL", "RL", "LATERAL", "LAT", "LLAT", "RLAT", "L", "R", "XTABLE") else "other"


def _by_code(code: str) -> str:
    return "frontal" if code in FRONTAL_CODES else "lateral" if code in LATERAL_CODES else ""


def _by_words(words: str) -> str:
    """The one view that the words name; "" for none, or for both ("PA and lateral")."""
    low = words.lower().replace("_", " ")
    frontal, lateral = bool(FRONTAL_WORDS.search(low)), bool(LATERAL_WORDS.search(low))
    return "" if frontal == lateral else "frontal" if frontal else "lateral"


def orientation(header: Any) -> tuple[str, str]:
    """Which way rows run to the right, and columns downwards: main letters of PatientOrientation, "" where not said.

    A film that lies on its side (rows run to head or feet) is told as it is once it stands: its columns' letter is first.
    """
    found = value(header, "PatientOrientation")
    try:
        across, down = (str(v).strip()[:1].upper() for v in found)
    except decoding_failures():
        return "", ""
    if across not in UPSIDE or down not in UPSIDE:
        return "", ""
    return (down, across) if across in "HF" else (across, down)


def turns(header: Any) -> tuple[bool, bool, bool]:
    """(swap rows and columns, flip upside down, mirror) to make the film L\\F, a lateral one A\\F or P\\F, in this order."""
    found = value(header, "PatientOrientation")
    across, down = orientation(header)
    if not across or across in "HF" or down not in "HF":
        return False, False, False
    lies = str(found[0]).strip()[:1].upper() in "HF"
    return lies, down == "H", across == "R"


def warnings_of(header: Any) -> list[str]:
    """What a person should look at before using this image."""
    said = []
    if text(header, "BurnedInAnnotation").upper() == "YES":
        said.append("burnt-in annotation")
    if (modality := text(header, "Modality").upper()) in COPIED:
        said.append(f"modality {modality}: a copy, not the detector's image")
    if text(header, "ConversionType").upper() in ("DF", "WSD", "SD", "SI", "DRW", "SYN"):
        said.append("a scan or a screen copy by its ConversionType")
    if any(turns(header)):
        said.append("turned or mirrored to stand as PatientOrientation says")
    if _contradiction(header):
        said.append("MONOCHROME2 with PresentationLUTShape INVERSE: the two tags contradict each other")
    return said


def _contradiction(header: Any) -> bool:
    shape, photometric = text(header, "PresentationLUTShape").upper(), text(header, "PhotometricInterpretation").upper()
    return shape == "INVERSE" and photometric == "MONOCHROME2"


def inverted(header: Any, follow_shape: bool = True) -> bool:
    """True where low values are bright: MONOCHROME1, and INVERSE on a MONOCHROME2 image unless `follow_shape` is off."""
    photometric = text(header, "PhotometricInterpretation").upper()
    return photometric == "MONOCHROME1" or (follow_shape and _contradiction(header))
