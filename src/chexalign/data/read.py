"""All studies of a recipe, from one source or several, shaped as the recipe asks."""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from chexalign.data import check_sources, load_source
from chexalign.data.clean import cleaned
from chexalign.data.drops import Drops
from chexalign.data.masks import unmasked
from chexalign.data.paths import image_folder
from chexalign.data.splits import by_patient
from chexalign.data.views import check_view_names
from chexalign.recipe.studies import Studies
from chexalign.records import Study


def read_studies(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """Every study of every source in the sources' order, those that cannot be used too: the caller filters.

    Images are those of the wanted views, their paths relative to `image_folder(settings, folder)`. With several sources
    an id is `source:id`, because two sets may both have a patient 1.
    """
    check_sources(settings)
    parts = settings.parts()
    root = image_folder(settings, folder)
    for part in parts:
        check_view_names(part.view_names)
        own = os.path.relpath(image_folder(part, folder), root) if len(parts) > 1 else ""
        for study in load_source(part.source or "")(part, seed, folder, drops):
            shaped = _shaped(study, part, seed)
            yield shaped if len(parts) == 1 else _named(shaped, part.source or "", own, drops)


def _shaped(study: Study, settings: Studies, seed: int) -> Study:
    """Split by patient, without masks, and without what speaks of an earlier image, where the recipe asks for it."""
    shaped = study
    if settings.split_by == "patient":
        shaped = replace(shaped, split=by_patient(settings, seed)(study.patient_id))
    shaped = unmasked(shaped) if settings.masks == "remove" else shaped
    return cleaned(shaped) if settings.report_clean else shaped


def _named(study: Study, source: str, folder: str, drops: Drops) -> Study:
    """The study among those of other sources: its ids and its image paths say which source it is from."""
    study_id = f"{source}:{study.study_id}"
    if place := drops.places.pop(study.study_id, None):
        drops.places[study_id] = place
    images = tuple((os.path.normpath(os.path.join(folder, path)), view) for path, view in study.images)
    return replace(study, study_id=study_id, patient_id=f"{source}:{study.patient_id}", images=images)
