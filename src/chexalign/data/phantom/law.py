"""What a phantom patient has: the kinds of finding, how often they occur and where they may lie."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

CHEXPERT = {  # kind: its CheXpert name
    "cardiomegaly": "Cardiomegaly",
    "effusion": "Pleural Effusion",
    "opacity": "Lung Opacity",
    "consolidation": "Consolidation",
    "atelectasis": "Atelectasis",
    "edema": "Edema",
    "nodule": "Lung Lesion",
    "pneumothorax": "Pneumothorax",
    "device": "Support Devices",
}
KINDS = tuple(CHEXPERT)
CHEXPERT_14 = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices", "No Finding",
)  # fmt: skip

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Finding:
    """One finding and its true place: `box` is (x0, y0, x1, y1) in fractions of the image, filled in by the drawing."""

    kind: str
    side: str | None = None  # "left", "right" or "bilateral", of the patient
    zone: str | None = None  # "upper", "middle" or "lower"
    size: str | None = None  # "small", "moderate" or "large"
    severity: str | None = None  # "mild", "moderate" or "severe"
    device: str | None = None  # "catheter", "pacemaker" or "tube" where kind is "device"
    box: Box | None = None
    parts: tuple[Box, ...] = ()  # the boxes of what lies apart inside `box`: both sides of a bilateral finding

    def to_dict(self) -> dict[str, Any]:
        """A JSON object without `parts`, which only the drawing needs; `box` as a list, None before it is drawn."""
        told = {**asdict(self), "box": list(self.box) if self.box else None}
        return {k: v for k, v in told.items() if k != "parts"}


NORMAL = 0.22  # share of studies without a finding besides devices
DEVICE = {"catheter": 0.14, "pacemaker": 0.06, "tube": 0.07}
PRIOR = {  # kind: its share among the abnormal studies, before RAISES; in the order in which they are placed
    "cardiomegaly": 0.28,
    "edema": 0.12,
    "effusion": 0.27,
    "pneumothorax": 0.13,
    "consolidation": 0.16,
    "atelectasis": 0.20,
    "opacity": 0.24,
    "nodule": 0.19,
}
RAISES = {  # (present, later): factor on the later kind's share
    ("cardiomegaly", "edema"): 2.0,
    ("cardiomegaly", "effusion"): 1.3,
    ("edema", "effusion"): 1.4,
    ("edema", "pneumothorax"): 0.4,
    ("edema", "opacity"): 0.3,
    ("effusion", "atelectasis"): 1.3,
    ("consolidation", "opacity"): 0.6,
}
TRAITS: dict[str, dict[str, dict[str, float]]] = {  # kind: trait: value: share
    "cardiomegaly": {"severity": {"mild": 0.4, "moderate": 0.4, "severe": 0.2}},
    "edema": {"severity": {"mild": 0.35, "moderate": 0.4, "severe": 0.25}},
    "effusion": {
        "size": {"small": 0.4, "moderate": 0.4, "large": 0.2},
        "side": {"left": 0.35, "right": 0.35, "bilateral": 0.3},
    },
    "pneumothorax": {"size": {"small": 0.35, "moderate": 0.4, "large": 0.25}, "side": {"left": 0.5, "right": 0.5}},
    "consolidation": {"zone": {"upper": 0.3, "middle": 0.25, "lower": 0.45}, "side": {"left": 0.5, "right": 0.5}},
    "atelectasis": {"zone": {"lower": 1.0}, "side": {"left": 0.4, "right": 0.4, "bilateral": 0.2}},
    "opacity": {
        "zone": {"upper": 0.3, "middle": 0.35, "lower": 0.35},
        "side": {"left": 0.43, "right": 0.42, "bilateral": 0.15},
    },
    "nodule": {
        "zone": {"upper": 0.4, "middle": 0.35, "lower": 0.25},
        "side": {"left": 0.5, "right": 0.5},
        "size": {"small": 0.6, "large": 0.4},
    },
    "catheter": {"side": {"right": 0.7, "left": 0.3}},
    "pacemaker": {"side": {"left": 0.85, "right": 0.15}},
    "tube": {},
}


def draw_findings(rng: np.random.Generator) -> tuple[Finding, ...]:
    """One patient's findings, boxes still empty."""
    devices = tuple(_traits(rng, name) for name, share in DEVICE.items() if rng.random() < share)
    found: list[Finding] = []
    abnormal = rng.random() >= NORMAL
    while abnormal and not found:
        found = _draw_disease(rng)
    return (*devices, *found)


def _draw_disease(rng: np.random.Generator) -> list[Finding]:
    """Each kind by its share, never two signs where one would hide the other."""
    found: list[Finding] = []
    taken: set[tuple[str, str]] = set()
    for kind, share in PRIOR.items():
        for earlier in found:
            share *= RAISES.get((earlier.kind, kind), 1.0)
        if rng.random() >= share:
            continue
        finding = _traits(rng, kind)
        if taken.isdisjoint(cells := _cells(finding)):
            found.append(finding)
            taken |= cells
    return found


def _traits(rng: np.random.Generator, name: str) -> Finding:
    kind, device = (name, None) if name in CHEXPERT else ("device", name)
    drawn = {t: str(rng.choice(list(shares), p=list(shares.values()))) for t, shares in TRAITS[name].items()}
    return replace(Finding(kind, device=device), **drawn)  # type: ignore[arg-type]


def _cells(finding: Finding) -> set[tuple[str, str]]:
    """The (side, zone) cells a finding claims for itself; air and fluid share no pleural space."""
    sides = ("left", "right") if finding.side == "bilateral" else (finding.side or "left",)
    zones: tuple[str, ...] = (finding.zone,) if finding.zone else ()
    if finding.kind == "effusion":
        hidden = {"small": (), "moderate": ("lower",), "large": ("lower", "middle")}[finding.size or "small"]
        zones = ("pleura", *hidden)
    elif finding.kind == "pneumothorax":
        zones = ("pleura", "upper", "middle") if finding.size == "large" else ("pleura", "upper")
    elif finding.kind == "cardiomegaly" and finding.severity == "severe":
        zones = ("lower",)
    return {(side, zone) for side in sides for zone in zones}


def labels(findings: tuple[Finding, ...]) -> dict[str, Any]:
    """The exact ground truth: 14 CheXpert names → 0 or 1, the findings with their places, and the boxes of each name."""
    present = {CHEXPERT[f.kind] for f in findings}
    if present <= {"Support Devices"}:
        present.add("No Finding")
    boxes: dict[str, list[list[float]]] = {}
    for finding in findings:
        boxes.setdefault(CHEXPERT[finding.kind], []).extend(map(list, finding.parts))
    return {
        "chexpert": {n: int(n in present) for n in CHEXPERT_14},
        "findings": [f.to_dict() for f in findings],
        "boxes": boxes,  # (x0, y0, x1, y1) in fractions of the first image
    }
