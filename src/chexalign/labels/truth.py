"""The labels that a study's source knows, beside its report or in place of one: a gold set, or CheXpert's 14."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chexalign.labels import LABELS
from chexalign.records import Study

SETS = ("gold", "chexpert", "chexbert")  # keys of Study.labels that hold labels by name, the first there is taken
STATUSES = {1.0: 1, 0.0: 0, -1.0: -1}


def study_labels(study: Study) -> dict[str, int | None] | None:
    """One status per label (1, 0, -1; None where nothing is known), or None for a study without labels.

    They lie in `labels.gold`, `labels.chexpert` or `labels.chexbert`, or in `labels` itself. No Finding, where it is not
    given, is 1 when no label but Support Devices is 1 or -1. Raises ValueError for a status that is no 1, 0, -1 or empty value.
    """
    rows = [study.labels.get(name) for name in SETS]
    known = next((row for row in rows if isinstance(row, Mapping) and row), study.labels)
    given = {label: known[label] for label in LABELS if label in known}
    if not given:
        return None
    labels = {label: _status(given.get(label), label, study.study_id) for label in LABELS}
    if labels["No Finding"] is None:
        ill = any(labels[label] in (1, -1) for label in LABELS[:-1] if label != "Support Devices")
        labels["No Finding"] = None if ill else 1
    return labels


def _status(value: Any, label: str, study: str) -> int | None:
    if value is None or value == "" or value != value:
        return None
    try:
        return STATUSES[float(value)]
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"study {study}: label {label} is {value!r}; a label is 1, 0, -1 or empty") from error
