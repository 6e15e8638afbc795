"""Stage `studies`: a source's rows → studies.jsonl, with every unusable row named and counted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from chexalign.data import Drops, check_leakage, load_source, may_lack_images, source_entry, unit_hash
from chexalign.data.images import ImageError, load_image
from chexalign.data.masks import unmasked
from chexalign.errors import WorkError
from chexalign.jsonl import atomic_write, write_records
from chexalign.progress import progress, say
from chexalign.recipe.recipe import Recipe
from chexalign.records import Study
from chexalign.run.folder import Run, StageResult
from chexalign.run.studies import image_root
from chexalign.run.task import missing_section

SHOWN = 10  # dropped rows printed; all of them are in studies_dropped.txt


def make_studies(run: Run) -> StageResult:
    """Read the source, drop what cannot be used with one line each, refuse patient leakage, write studies.jsonl."""
    settings, drops = run.recipe.studies, Drops()
    source = load_source(settings.source)(settings, run.recipe.seed, run.dir, drops)
    with progress("reading studies", settings.n, "studies") as ticker:
        candidates = []
        for study in source:
            candidates.append(unmasked(study) if settings.masks == "remove" else study)
            ticker.advance()
    rows_in = len(candidates) + drops.reasons.total()
    usable = _usable(_in_drawn_order(candidates, run), image_root(run), run, drops)
    studies = list(itertools.islice(usable, settings.n))
    check_leakage(studies)
    _report_drops(run, drops)
    for split in needed_splits(run.recipe):
        if not any(s.split == split for s in studies):
            raise WorkError(
                f"no usable {split} study among {len(studies)} from {settings.source}; raise studies.n or the split's share, "
                f"or see what was dropped"
            )
    write_records(run.path("studies.jsonl"), sorted(studies, key=Study.key))
    return StageResult(rows_in, len(studies), dict(drops.reasons))


def needed_splits(recipe: Recipe) -> tuple[str, ...]:
    """Training and test always; validation where a warm-up stops early on it."""
    return ("train", "val", "test") if recipe.warmup else ("train", "test")


def _in_drawn_order(studies: list[Study], run: Run) -> list[Study]:
    """When only some studies are wanted, patients come in a seeded random order and each patient's studies stay together."""
    if source_entry(run.recipe.studies.source).is_drawn or run.recipe.studies.n is None:
        return studies
    return sorted(studies, key=lambda s: unit_hash("draw", run.recipe.seed, s.patient_id))


def _usable(studies: list[Study], root: Path, run: Run, drops: Drops) -> Iterator[Study]:
    settings, seen = run.recipe.studies, set()
    with progress("checking studies", min(len(studies), settings.n or len(studies)), "studies") as ticker:
        for study in studies:
            ticker.advance()
            where = f"study {study.study_id}"
            if study.study_id in seen:
                drops.add("duplicate study id", f"{where}: a second row with this id; give each study its own id")
                continue
            seen.add(study.study_id)
            if lost := missing_section(run.recipe, study):
                reason = "empty reference" if lost == run.recipe.task else f"no {lost}"
                use = "judge against" if lost == run.recipe.task else "write it from"
                drops.add(reason, f"{where}: no {lost} text to {use}; add it or remove the row")
                continue
            try:
                _check_images(study, root, settings.max_images, settings.check_images)
            except ImageError as error:
                drops.add("unusable image", f"{where}: {error}")
                continue
            yield study


def _check_images(study: Study, root: Path, max_images: int, decode: bool) -> None:
    if not study.images and not may_lack_images(study) and max_images > 0:
        raise ImageError("has no image of a wanted view (studies.views); set studies.max_images=0 for text alone")
    for path, _view in study.images[:max_images]:
        if decode:
            load_image(root, path)


def _report_drops(run: Run, drops: Drops) -> None:
    if not drops.lines:
        return
    path = run.path("studies_dropped.txt")
    with atomic_write(path) as handle:
        handle.write("\n".join(drops.lines) + "\n")
    for line in drops.lines[:SHOWN]:
        say(f"dropped: {line}")
    counts = ", ".join(f"{n} {reason}" for reason, n in drops.reasons.most_common())
    say(f"dropped {len(drops.lines)} rows ({counts}); all lines in {path}")
