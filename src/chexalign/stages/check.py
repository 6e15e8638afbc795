"""Preflight: what would go wrong after hours is looked for in seconds. Writes nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from chexalign.data import Drops, check_leakage, is_drawn, labels_alone, may_lack_images, source_entry
from chexalign.data.decode_check import Job, check_image
from chexalign.data.language import language_warning
from chexalign.data.read import read_studies
from chexalign.errors import WorkError, printable
from chexalign.recipe.recipe import Recipe
from chexalign.records import Study
from chexalign.run.judges import judges_of
from chexalign.run.task import missing_section, reference
from chexalign.stages.check_model import Finding, check_model
from chexalign.stages.studies import check_reports, needed_splits
from chexalign.stages.study_images import unwritten_folder

LOOKED_AT = 50  # images decoded
DRAWN_LIMIT = 50  # studies drawn, where the source draws them


def check_recipe(recipe: Recipe) -> Iterator[Finding]:
    """(fine?, one line) for each thing checked."""
    judges_of(recipe)
    yield True, f"recipe {recipe.name}: every key known, judges {', '.join(recipe.score.judges)}"
    with tempfile.TemporaryDirectory() as folder:
        studies, drops, root = _read(recipe, Path(folder))
        yield from _check_studies(recipe, studies, drops)
        yield from _check_images(recipe, studies, drops, root)
        yield from check_model(recipe, studies, root)
    yield _check_disk(recipe, len(studies))


def _read(recipe: Recipe, folder: Path) -> tuple[list[Study], Drops, Path]:
    settings, drops = recipe.studies, Drops()
    check_reports(recipe)
    if is_drawn(settings):
        settings = settings.model_copy(update={"n": min(settings.n or DRAWN_LIMIT, DRAWN_LIMIT)})
    studies = list(read_studies(settings, recipe.seed, folder, drops))
    return studies, drops, unwritten_folder(settings, folder)


def _check_studies(recipe: Recipe, studies: list[Study], drops: Drops) -> Iterator[Finding]:
    labelled = sum(map(labels_alone, studies))
    studies = [s for s in studies if not labels_alone(s)]
    splits = Counter(s.split for s in studies)
    shown = ", ".join(f"{splits[k]} {k}" for k in ("train", "val", "test"))
    drawn = " (a draw of the phantom law)" if is_drawn(recipe.studies) else ""
    yield all(splits[k] for k in needed_splits(recipe)), f"{len(studies)} studies{drawn}: {shown}"
    if labelled:
        yield True, f"{labelled} images with labels and no report: they teach the warm-up's tower alone"
    first = f", first: {drops.faults[0]}" if drops.faults else ""
    yield not drops.faults, f"unreadable rows: {len(drops.faults)}{first}"
    if asked := len(drops.lines) - len(drops.faults):
        yield True, f"left out as the recipe asks: {asked}"
    twice = [i for i, n in Counter(s.study_id for s in studies).items() if n > 1]
    yield not twice, f"duplicate study ids: {len(twice)}" + (f", first: {twice[0]}" if twice else "")
    for remark, n in drops.notes.most_common():
        yield True, f"note: {remark} ({n:,})"
    empty = [s.study_id for s in studies if missing_section(recipe, s)]
    note = f", first: {empty[0]}; these studies are dropped" if empty else ""
    yield len(empty) < max(1, len(studies)) / 2, f"empty references: {len(empty)} of {len(studies)}{note}"
    if warning := language_warning([reference(recipe, s) for s in studies if not missing_section(recipe, s)]):
        read = (*recipe.score.judges, *recipe.evaluate.judges, recipe.pairs.judge)
        yield not any("finding" in line or "chexpert" in line for line in read), warning
    try:
        check_leakage(studies)
        yield True, "no patient is in two splits"
    except WorkError as error:
        yield False, str(error)


def _check_images(recipe: Recipe, studies: list[Study], drops: Drops, root: Path) -> Iterator[Finding]:
    without = sum(not s.images for s in studies if not may_lack_images(s))
    if without and recipe.studies.max_images:
        note = "these are dropped; studies.max_images=0 for text alone"
        yield (
            without < len(studies) / 2,
            f"studies without an image of a wanted view: {without} of {len(studies)}; {note}",
        )
    step = max(1, len(studies) // LOOKED_AT)
    yield from _looked_at(recipe, studies[::step][:LOOKED_AT], drops, root)


def _looked_at(recipe: Recipe, studies: list[Study], drops: Drops, root: Path) -> Iterator[Finding]:
    """What a look at some images finds: those that cannot be decoded, and those that show no film."""
    from chexalign.policies.presets import most_images

    broken, doubtful, looked, sizes = [], [], 0, set()
    most = most_images(recipe)
    shows_paths = all(source_entry(part.source).shows_paths for part in recipe.studies.parts())
    for study in studies:
        for number, (path, _view) in enumerate(study.images[:most], start=1):
            looked += 1
            checked = check_image(Job(str(root), path))
            where = f"{drops.where(study.study_id)}: image {printable(path) if shows_paths else number}"
            if checked.error:
                broken.append(f"{where} {checked.error}")
                continue
            sizes.add((checked.width, checked.height))
            doubtful += [f"{where}: {doubt}" for doubt in checked.doubts]
    extent = f", {min(sizes)} to {max(sizes)} pixels" if sizes else ""
    first = f"; {broken[0]}" if broken else ""
    yield not broken, f"images: {len(broken)} of {looked} decoded are broken{extent}{first}"
    if doubtful:
        yield False, f"images: {len(doubtful)} of {looked} decoded are doubtful, first: {doubtful[0]}"


def _check_disk(recipe: Recipe, n_studies: int) -> Finding:
    """Rows of text, images drawn, and three copies of the policy (baseline, aligned, checkpoint with AdamW's state)."""
    n = recipe.studies.n or n_studies
    rows = n * recipe.sample.n * 4_000
    images = n * 12_000 if is_drawn(recipe.studies) else 0
    local = Path(recipe.policy.model)
    weights = sum(p.stat().st_size for p in local.glob("*.safetensors")) if local.is_dir() else 20_000_000
    need = rows + images + 6 * weights
    folder = recipe.run_dir or Path("runs")
    while not folder.exists():
        folder = folder.absolute().parent
    free = shutil.disk_usage(folder).free
    return need < free, f"disk: about {need / 1e9:.2f} GB needed, {free / 1e9:.0f} GB free at {folder}"
