"""results.json as records: written by stage `evaluate`, read by the pages, `compare` and sweeps.

A cell is a JSON object `{mean, low, high, n, abstained}` (`difference` also has `relative`), as `stats` makes it; cells stand
under the name of their metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

Cells = Mapping[str, Any]  # metric → cell
SIDES = ("baseline", "aligned", "difference")
BLOCK_FIELDS = (*SIDES, "length", "n_studies", "decoding")


def _object(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The object `row[name]`, an empty one where there is none. Raises ValueError where it is something else."""
    value = row.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be an object, not {type(value).__name__}")
    return value


@dataclass(frozen=True)
class Block:
    """Baseline, aligned policy and their paired difference on one set of studies under one decoding."""

    baseline: Cells = field(default_factory=dict)
    aligned: Cells = field(default_factory=dict)
    difference: Cells = field(default_factory=dict)
    length: Mapping[str, float | None] | None = None  # mean words of baseline, aligned, reference; not of one finding
    n_studies: int | None = None
    decoding: str | None = None

    def side(self, name: str) -> Cells:
        """The cells of `baseline`, `aligned` or `difference`."""
        return {"baseline": self.baseline, "aligned": self.aligned, "difference": self.difference}[name]

    def to_dict(self) -> dict[str, Any]:
        """results.json's form; fields that are None are left out, not written as null."""
        row = {name: getattr(self, name) for name in BLOCK_FIELDS}
        return {k: v for k, v in row.items() if v is not None}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        """A block as it is stored; what an older file lacks is empty. Raises ValueError for a side that is no object."""
        return cls(
            **{name: _object(row, name) for name in SIDES},
            length=_object(row, "length") or None,
            n_studies=row.get("n_studies"),
            decoding=row.get("decoding"),
        )


@dataclass(frozen=True)
class TemplateControl:
    """One fixed report that ignores the study: its text and what it scores, on all studies and on the abnormal ones."""

    text: str = ""
    scores: Cells = field(default_factory=dict)
    abnormal_scores: Cells = field(default_factory=dict)
    constants: Mapping[str, Any] = field(
        default_factory=dict
    )  # all, abnormal → the best constant text: judge, text, score, n

    def to_dict(self) -> dict[str, Any]:
        """results.json's form; `constants` only where they were searched."""
        row = {"text": self.text, "scores": self.scores, "abnormal_scores": self.abnormal_scores}
        return row | ({"constants": dict(self.constants)} if self.constants else {})


@dataclass(frozen=True)
class ShuffledControl:
    """The aligned policy on other studies' images, what the right ones add (`difference`), and add to the gain (`gain`)."""

    scores: Cells = field(default_factory=dict)
    difference: Cells = field(default_factory=dict)
    gain: Cells = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """results.json's form; always all three keys."""
        return {"scores": self.scores, "difference": self.difference, "gain": self.gain}


@dataclass(frozen=True)
class Controls:
    """What a policy must beat to have read the image: a fixed report, and the images of other studies."""

    template: TemplateControl = TemplateControl()
    shuffled_images: ShuffledControl | None = None  # None: no images, or not asked for

    def to_dict(self) -> dict[str, Any]:
        """results.json's form; no key `shuffled_images` where that control was not made."""
        shuffled = self.shuffled_images
        return {"template": self.template.to_dict()} | ({"shuffled_images": shuffled.to_dict()} if shuffled else {})

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        """The other way of `to_dict`; absent keys give the defaults."""
        template, shuffled = _object(row, "template"), _object(row, "shuffled_images")
        return cls(
            TemplateControl(
                str(template.get("text") or ""),
                *(_object(template, k) for k in ("scores", "abnormal_scores", "constants")),
            ),
            ShuffledControl(*(_object(shuffled, k) for k in ("scores", "difference", "gain"))) if shuffled else None,
        )


@dataclass(frozen=True)
class Results:
    """All of results.json. `overall` is the headline's block: every test study at temperature 1."""

    overall: Block
    recipe: str | None = None
    task: str | None = None
    level: float | None = None  # of the intervals
    n_bootstrap: int | None = None
    headline: tuple[str, ...] = ()
    subsets: Mapping[str, Block] = field(default_factory=dict)  # greedy, abnormal, shuffled, stage_1, finding/Edema …
    controls: Controls = Controls()
    grounding: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of results.json, its keys in the order in which the file has always had them."""
        head = {name: getattr(self, name) for name in ("recipe", "task", "level", "n_bootstrap")}
        return {
            **head,
            "headline": list(self.headline),
            **self.overall.to_dict(),
            "subsets": {name: block.to_dict() for name, block in self.subsets.items()},
            "controls": self.controls.to_dict(),
            **({} if self.grounding is None else {"grounding": self.grounding}),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        """The results as they are stored. Raises ValueError naming the part that is no object or list."""
        for name in ("headline", "warnings"):
            if not isinstance(row.get(name) or [], list):
                raise ValueError(f"{name} must be a list")
        subsets = {name: block for name, block in _object(row, "subsets").items() if isinstance(block, dict)}
        return cls(
            overall=Block.from_dict(row),
            **{name: row.get(name) for name in ("recipe", "task", "level", "n_bootstrap")},
            headline=tuple(m for m in row.get("headline") or () if isinstance(m, str)),
            subsets={name: Block.from_dict(block) for name, block in subsets.items()},
            controls=Controls.from_dict(_object(row, "controls")),
            grounding=_object(row, "grounding") or None,
            warnings=tuple(str(w) for w in row.get("warnings") or ()),
        )
