"""The studies of a run: who learns from whom, whose patient, and where the images lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chexalign.data import image_folder, unit_hash
from chexalign.errors import WorkError
from chexalign.recipe.recipe import Recipe
from chexalign.records import Pair, Study
from chexalign.run.folder import Run


def patients_of(run: Run, pairs: Sequence[Pair]) -> list[str]:
    """The patient of each pair, from studies.jsonl, where a study is one row and so has one patient."""
    known = {s.study_id: s.patient_id for s in run.studies()}
    for row, pair in enumerate(pairs, start=1):
        if pair.study_id not in known:
            raise WorkError(
                f"{run.path('pairs.jsonl')}:{row}: study {pair.study_id!r} is not in studies.jsonl, which algorithm kto "
                "needs to know its patient; add the study, or take another algorithm"
            )
    return [known[p.study_id] for p in pairs]


def warmup_studies(recipe: Recipe, train: Sequence[Study]) -> list[Study]:
    """The training studies that the warm-up learns from."""
    share = recipe.warmup.share if recipe.warmup else 1.0
    return [s for s in train if place_of(recipe, s) < share]


def sampled_studies(recipe: Recipe, train: Sequence[Study]) -> list[Study]:
    """The training studies that completions are drawn for: all, or those that the warm-up has not seen.

    `sample.limit` of them are drawn at random by the recipe's seed, in the order of the file; a smaller draw is a part of a
    larger one.
    """
    seen = set() if recipe.sample.studies == "all" else {s.study_id for s in warmup_studies(recipe, train)}
    left = [s for s in train if s.study_id not in seen]
    if recipe.sample.limit is None or recipe.sample.limit >= len(left):
        return left
    by_chance = sorted(left, key=lambda s: unit_hash("sample.limit", recipe.seed, s.study_id))
    drawn = {s.study_id for s in by_chance[: recipe.sample.limit]}
    return [s for s in left if s.study_id in drawn]


def place_of(recipe: Recipe, study: Study) -> float:
    """A patient's place in [0, 1): a smaller share is a part of a larger one, and no patient is on both sides."""
    return unit_hash("share", recipe.seed, study.patient_id)


def image_root(run: Run) -> Path:
    """The folder that the image paths of studies.jsonl are relative to."""
    return image_folder(run.recipe.studies, run.path("images").parent)
