"""What is written: the findings, from the images, or the impression, from the findings."""

from __future__ import annotations

from chexalign.judges.contract import is_blank
from chexalign.labels.truth import study_labels
from chexalign.recipe.recipe import Recipe
from chexalign.records import Study

NEEDS = {"findings": ("findings",), "impression": ("findings", "impression")}  # task → sections that must not be empty


def reference(recipe: Recipe, study: Study) -> str:
    """The radiologist's text that is to be written: the target of training, the reference of the judges."""
    return study.findings if recipe.task == "findings" else study.impression


def missing_section(recipe: Recipe, study: Study) -> str | None:
    """The first section that the task needs and the study does not have.

    A test study whose source gives labels needs no report: it is evaluated against its labels, and is never trained on.
    """
    if recipe.task == "findings" and study.split == "test" and study_labels(study) is not None:
        return None
    return next((name for name in NEEDS[recipe.task] if is_blank(getattr(study, name))), None)
