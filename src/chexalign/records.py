"""The records that cross stage boundaries: frozen, long not wide, with a JSON round trip.

One row per study, per completion, per verdict, per pair. A judge that cannot answer leaves `score=None` and says why in
`error`; it never writes 0 or NaN instead.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Self

SPLITS = ("train", "val", "test")

# The 14 CheXpert names that a study's labels go by, in the order of CheXbert (Smit et al. 2020, table 2).
LABELS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
)
# The five of CheXpert's competition (Irvin et al. 2019).
FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
LABEL_SETS: dict[str, tuple[str, ...]] = {"14": LABELS, "13": LABELS[:-1], "5": FIVE}


@dataclass(frozen=True)
class _Record:
    @classmethod
    def key_fields(cls) -> tuple[str, ...]:
        """The fields that identify a row within its file."""
        return ("study_id",)

    def key(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.key_fields())

    def to_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def to_json(self) -> str:
        """One JSON line. Raises ValueError on NaN or infinity: they never reach the disk."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, sort_keys=False)

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Self:
        """Build from a parsed JSON object. Raises ValueError naming unknown or missing fields."""
        known = {f.name: f for f in dataclasses.fields(cls)}
        if unknown := sorted(set(row) - set(known)):
            raise ValueError(f"unknown field {', '.join(unknown)} in a {cls.__name__} row")
        required = {n for n, f in known.items() if f.default is f.default_factory is dataclasses.MISSING}
        if missing := sorted(required - set(row)):
            raise ValueError(f"missing field {', '.join(missing)} in a {cls.__name__} row")
        return cls(**{k: _freeze(v) for k, v in row.items()})

    @classmethod
    def from_json(cls, line: str) -> Self:
        return cls.from_dict(json.loads(line))


def _freeze(value: Any) -> Any:
    """Lists become tuples so that records stay hashable and cannot be changed in place; dicts stay dicts."""
    return tuple(_freeze(v) for v in value) if isinstance(value, list) else value


def _check_text(record: _Record, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(record, name), str):
            raise ValueError(f"{name} must be text, not {type(getattr(record, name)).__name__}")


def _check_number(record: _Record, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{name} must be a number or null, not {type(value).__name__}")
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}; an unknown number is null, never NaN or infinity")


@dataclass(frozen=True)
class Study(_Record):
    """One imaging exam of one patient. `images` are (path, view) with the path relative to the source's image root."""

    study_id: str
    patient_id: str
    split: str
    images: tuple[tuple[str, str], ...] = ()
    indication: str = ""
    comparison: str = ""
    findings: str = ""
    impression: str = ""
    labels: dict[str, Any] = field(default_factory=dict)  # what the source knows beside the text
    source: str = ""

    def __post_init__(self) -> None:
        _check_text(self, "study_id", "patient_id", "indication", "comparison", "findings", "impression", "source")
        if not self.study_id:
            raise ValueError("study_id is empty")
        if self.split not in SPLITS:
            raise ValueError(f"split {self.split!r} is not one of {', '.join(SPLITS)}")


@dataclass(frozen=True)
class Completion(_Record):
    """One text a policy generated for one study. `logp` is the sum over its tokens at temperature 1, in nats."""

    study_id: str
    sample_index: int
    text: str
    logp: float | None
    n_tokens: int
    finish_reason: str  # "stop": the policy ended it; "length": cut at max_new_tokens
    policy: str
    seed: int
    tokens: tuple[int, ...] = ()  # the sampled ids, end-of-text included: text need not tokenize back to them
    written: str | None = None  # what the policy wrote, where `text` is that without its tags or markup

    @classmethod
    def key_fields(cls) -> tuple[str, ...]:
        """What a ledger resumes by: one row per study and sample."""
        return ("study_id", "sample_index")

    def __post_init__(self) -> None:
        _check_text(self, "study_id", "text", "policy")
        _check_number(self, "logp")


@dataclass(frozen=True)
class Verdict(_Record):
    """One judge's answer about one completion: a score, or None and the reason it abstained."""

    study_id: str
    sample_index: int
    judge: str
    score: float | None
    error: str | None
    details: dict[str, Any]
    judge_version: str
    seconds: float

    @classmethod
    def key_fields(cls) -> tuple[str, ...]:
        """What a ledger resumes by: one row per study, sample and judge."""
        return ("study_id", "sample_index", "judge")

    def __post_init__(self) -> None:
        _check_text(self, "study_id", "judge", "judge_version")
        _check_number(self, "score", "seconds")
        if (self.score is None) == (self.error is None):
            raise ValueError("a verdict has a score or an error, exactly one of them")


@dataclass(frozen=True)
class Pair(_Record):
    """A preferred and a less preferred text for one study, with the scores that made it so."""

    study_id: str
    prompt: str
    images: tuple[tuple[str, str], ...]
    chosen: str
    rejected: str
    chosen_score: float | None
    rejected_score: float | None
    judge: str
    chosen_tokens: tuple[int, ...] = ()
    rejected_tokens: tuple[int, ...] = ()
    ref_chosen_logp: float | None = None
    ref_rejected_logp: float | None = None
    weight: float = 1.0  # of its loss in training

    def __post_init__(self) -> None:
        _check_text(self, "study_id", "prompt", "chosen", "rejected", "judge")
        _check_number(self, "chosen_score", "rejected_score", "ref_chosen_logp", "ref_rejected_logp", "weight")
        if self.weight is None or self.weight < 0:
            raise ValueError(f"weight is {self.weight}; a pair's weight is a number of at least 0")
