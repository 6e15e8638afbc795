"""What one text states: its facts, and what they say about each of the 14 labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chexalign.judges.findings.scrutiny import Scrutiny
from chexalign.labels import LABELS

STATUS = {"present": 1, "absent": 0, "uncertain": -1}
BY_NAME = {label.lower(): label for label in LABELS}


@dataclass(frozen=True)
class FactSheet:
    """What one text states: its facts with their labels, and the labels summed up (1, 0, -1; None where nothing is said)."""

    facts: tuple[dict[str, Any], ...]
    labels: Mapping[str, int | None]
    cost: Mapping[str, Any]
    scrutiny: Scrutiny | None = None  # by rules: what they could not read, and what is stated and denied


def no_finding(labels: Mapping[str, int | None]) -> dict[str, int | None]:
    """The 14 labels with No Finding by CheXpert's rule: 1 unless one but Support Devices is 1 or -1."""
    ill = any(labels.get(label) in (1, -1) for label in LABELS[:-1] if label != "Support Devices")
    return {**{label: labels.get(label) for label in LABELS}, "No Finding": None if ill else 1}
