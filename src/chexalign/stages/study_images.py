"""The images of the studies: each decoded once, in several processes and resumable, DICOM written out in 8 bits."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from chexalign.data import Drops, image_folder, may_lack_images, source_entry
from chexalign.data.decode_check import CheckedImage, Job, duplicates, find_image, stamp
from chexalign.data.decode_workers import Check, decoding
from chexalign.data.image_errors import ImageError
from chexalign.jsonl import Ledger, atomic_write
from chexalign.progress import progress
from chexalign.recipe.studies import Studies
from chexalign.records import Study
from chexalign.run.folder import Run

BATCH = 256  # studies between two writes of what was found; our choice
LEDGER = "images_checked.jsonl"  # only its .part is ever there: a stage that was killed goes on from it
DOUBTS = "studies_doubts.txt"
NO_VIEW = "no image of a wanted view"


def usable_images(candidates: Iterable[Study], wanted: int, run: Run, drops: Drops) -> list[Study]:
    """The first `wanted` studies whose images can be used, in their order; the others are dropped with a line each.

    What is doubtful about an image is counted, and named in studies_doubts.txt.
    """
    settings, source = run.recipe.studies, iter(candidates)
    ledger = Ledger(run.path(LEDGER), CheckedImage)
    digests: dict[str, str] = {}
    kept: list[Study] = []
    doubts: list[str] = []
    with progress("checking studies", wanted, "studies") as ticker:
        while len(kept) < wanted and (batch := list(itertools.islice(source, min(BATCH, wanted - len(kept))))):
            checked = _checked(batch, run, ledger)
            for given in batch:
                ticker.advance()
                study = _without_spare(given, run, checked, drops)
                if said := _broken(study, settings, checked):
                    drops.add(said[0], f"{drops.where(study.study_id)}: {said[1]}", study.split)
                    continue
                doubts += _doubts(study, settings, checked, drops)
                digests |= {p: checked[p].digest for p, _view in _shown(study, settings)}
                kept.append(study)
    doubts += _leaks(kept, digests, drops)
    if doubts:
        with atomic_write(run.path(DOUBTS)) as handle:
            handle.write("\n".join(doubts) + "\n")
    ledger.part.unlink(missing_ok=True)
    return [_as_written(study, settings) for study in kept]


def writes_images(settings: Studies) -> bool:
    """Whether the source's images are written into the run folder in 8 bits, under the studies' ids."""
    return not settings.sources and source_entry(settings.source).writes_images


def unwritten_folder(settings: Studies, folder: Path) -> Path:
    """Where the images lie before any is written to the run folder `folder`."""
    return settings.root if settings.root and writes_images(settings) else image_folder(settings, folder)


def _shown(study: Study, settings: Studies) -> tuple[tuple[str, str], ...]:
    return study.images[: settings.max_images]


def _target(study: Study, number: int) -> str:
    return f"images/{study.study_id}_{number}.png"


def _checked(batch: Sequence[Study], run: Run, ledger: Ledger[CheckedImage]) -> dict[str, CheckedImage]:
    """What is known of every shown image of these studies, by path; what an earlier try has found is not done again."""
    settings = run.recipe.studies
    root = unwritten_folder(settings, run.path("images").parent)
    if not (settings.check_images or writes_images(settings)):
        paths = (path for study in batch for path, _view in _shown(study, settings))
        return {path: find_image(root, path) for path in paths}
    jobs: dict[str, Job] = {}
    for study in batch:
        for number, (path, _view) in enumerate(_shown(study, settings), start=1):
            target = str(run.path(_target(study, number))) if writes_images(settings) else ""
            follow = settings.dicom.inverse_shape == "follow"
            jobs.setdefault(path, Job(str(root), path, target, settings.equalise, follow))
    stamps = {path: stamp(root, path) for path in jobs}
    left = [job for path, job in jobs.items() if stamps[path] not in ledger or not _there(job)]
    with decoding(sum(stamps[job.path][1] for job in left)) as check:
        found = _look(left, check)
    ledger.append([c for c in found if c.key() not in ledger])
    return {path: ledger.rows[key] for path, key in stamps.items() if key in ledger} | {c.path: c for c in found}


def _look(jobs: Sequence[Job], check: Check) -> list[CheckedImage]:
    return check(jobs) if jobs else []


def _without_spare(study: Study, run: Run, checked: dict[str, CheckedImage], drops: Drops) -> Study:
    """The study without broken images that come after those its model is shown: they must not cost it.

    Where images are written out their numbers are the ledger's, and all must be there.
    """
    shown = _shown(study, run.recipe.studies)
    if writes_images(run.recipe.studies) or not any(checked[path].error for path, _view in shown[1:]):
        return study
    from chexalign.policies.presets import most_images

    most = most_images(run.recipe)
    kept = shown[:most] + tuple(image for image in shown[most:] if not checked[image[0]].error)
    if kept == shown:
        return study
    drops.note("images that cannot be used, after those that the model is shown: left out", len(shown) - len(kept))
    return replace(study, images=kept)


def _there(job: Job) -> bool:
    return not job.target or Path(job.target).is_file()


def _broken(study: Study, settings: Studies, checked: dict[str, CheckedImage]) -> tuple[str, str] | None:
    """(reason, what to say) where the study has no image of a wanted view, or one that is missing or broken."""
    if not study.images and not may_lack_images(study) and settings.max_images > 0:
        return NO_VIEW, f"has {NO_VIEW} (studies.views); set studies.max_images=0 for text alone"
    for number, (path, _view) in enumerate(_shown(study, settings), start=1):
        if error := checked[path].error:
            missing = error.startswith("is missing")
            image_error = ImageError(error, path)
            name = f"{number} of {len(study.images)}"
            message = str(image_error) if _shows_paths(settings) else image_error.naming(name)
            return "image missing" if missing else "unusable image", message
    return None


def _shows_paths(settings: Studies) -> bool:
    return all(source_entry(part.source).shows_paths for part in settings.parts())


def _doubts(study: Study, settings: Studies, checked: dict[str, CheckedImage], drops: Drops) -> list[str]:
    """One line per doubt about an image that is used all the same; each is counted too."""
    lines = []
    for number, (path, _view) in enumerate(_shown(study, settings), start=1):
        for doubt in checked[path].doubts:
            drops.note(f"images: {doubt}; named in {DOUBTS}")
            lines.append(f"{drops.where(study.study_id)}: image {number} of {len(study.images)}: {doubt}")
    return lines


def _as_written(study: Study, settings: Studies) -> Study:
    if not writes_images(settings):
        return study
    written = ((_target(study, n), view) for n, (_path, view) in enumerate(_shown(study, settings), start=1))
    return replace(study, images=tuple(written))


def _leaks(studies: Sequence[Study], digests: dict[str, str], drops: Drops) -> list[str]:
    """The same pixels in two splits let an evaluation see what was trained on: one line per pair of studies."""
    twice = duplicates(studies, digests)
    if twice:
        drops.note(f"the same image in two splits, which lets test see training; named in {DOUBTS}", len(twice))
    return [f"{a.study_id} ({a.split}) and {b.study_id} ({b.split}) show the same image" for a, b in twice]
