"""What is written: the findings, from the images, or the impression, from the findings. And who learns from whom."""

from __future__ import annotations

from collections.abc import Sequence

from chexalign.data import unit_hash
from chexalign.judges.contract import is_blank
from chexalign.recipe.recipe import Recipe
from chexalign.records import Study

NEEDS = {"findings": ("findings",), "impression": ("findings", "impression")}  # task → sections that must not be empty


def reference(recipe: Recipe, study: Study) -> str:
    """The radiologist's text that is to be written: the target of training, the reference of the judges."""
    return study.findings if recipe.task == "findings" else study.impression


def missing_section(recipe: Recipe, study: Study) -> str | None:
    """The first section that the task needs and the study does not have."""
    return next((name for name in NEEDS[recipe.task] if is_blank(getattr(study, name))), None)


def warmup_studies(recipe: Recipe, train: Sequence[Study]) -> list[Study]:
    """The training studies that the warm-up learns from."""
    share = recipe.warmup.share if recipe.warmup else 1.0
    return [s for s in train if _place(recipe, s) < share]


def sampled_studies(recipe: Recipe, train: Sequence[Study]) -> list[Study]:
    """The training studies that completions are drawn for: all, or those that the warm-up has not seen."""
    seen = set() if recipe.sample.studies == "all" else {s.study_id for s in warmup_studies(recipe, train)}
    return [s for s in train if s.study_id not in seen][: recipe.sample.limit]


def _place(recipe: Recipe, study: Study) -> float:
    """A patient's place in [0, 1): a smaller share is a part of a larger one, and no patient is on both sides."""
    return unit_hash("share", recipe.seed, study.patient_id)
