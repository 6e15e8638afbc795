"""Source `openi`: the reports of the torchxrayvision wheel, an archive of the same form, or OpenI's folder of XML files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from chexalign.data.drops import Drops
from chexalign.data.openi import read_openi
from chexalign.data.splits import by_patient
from chexalign.recipe.studies import Studies
from chexalign.records import Study


def openi(settings: Studies, seed: int, folder: Path, drops: Drops) -> Iterator[Study]:
    """Real reports; without images, but where `root` is a folder that holds OpenI's PNG files too."""
    yield from read_openi(settings.root, by_patient(settings, seed))


def some_reports(n: int) -> list[str]:
    """The findings of every report of the wheel, empty ones too, however many are wanted."""
    return [study.findings for study in read_openi(None, lambda patient: "test")]
