"""Source `phantom`: drawn radiographs with known findings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from chexalign.data.drops import Drops
from chexalign.data.phantom import make_study
from chexalign.data.phantom import phantom as draw
from chexalign.data.splits import by_patient
from chexalign.recipe.studies import Studies
from chexalign.records import Study


def phantom(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """Drawn studies; images are written to the run folder."""
    yield from draw(seed, settings.n or 1000, settings.image_size, folder, by_patient(settings, seed))


def some_reports(n: int) -> list[str]:
    """2 n reports of seed 0, since some will be the same."""
    return [make_study(0, i, 32)[0].findings for i in range(2 * n)]
