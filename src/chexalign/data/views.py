"""View names of many archives → four classes, and which images of a study are kept, in which order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from chexalign.errors import RecipeError

CLASSES = ("frontal", "lateral", "other", "unknown")
FRONTAL = {
    "frontal", "pa", "ap", "antero-posterior", "postero-anterior", "anteroposterior", "posteroanterior", "postero anterior",
    "antero posterior", "ap horizontal", "ap supine", "ap portable", "portable ap", "frontal view", "pa view", "ap view",
}  # fmt: skip
LATERAL = {
    "lateral", "lat", "l", "ll", "rl", "left lateral", "right lateral", "lateral view", "llat", "rlat", "lat view",
}  # fmt: skip
UNKNOWN = {"", "unknown", "none", "nan", "null", "n/a", "na", "-", "?"}
PRIOR = "prior"  # the first frontal image of the patient's study before, where the recipe's views name it

Images = Sequence[tuple[str, str]]


def view_class(name: str, own: Mapping[str, str] | None = None) -> str:
    """frontal, lateral, unknown where nothing is said, or other (obliques, decubitus, what is no chest view).

    `own` are the recipe's words (studies.view_names), compared without regard to case.
    """
    plain = name.strip().lower()
    for word, known in (own or {}).items():
        if word.strip().lower() == plain:
            return known
    return _archive_class(plain)


@lru_cache(maxsize=4096)
def _archive_class(plain: str) -> str:
    if plain in CLASSES or plain == PRIOR:
        return plain
    plain = re.sub(r"[._\s]+", " ", plain.replace("p.a", "pa").replace("a.p", "ap")).strip()
    if plain in UNKNOWN:
        return "unknown"
    return "frontal" if plain in FRONTAL else "lateral" if plain in LATERAL else "other"


def check_view_names(own: Mapping[str, str]) -> None:
    """Raise RecipeError where the recipe's words lead to no class."""
    for word, known in own.items():
        if known not in CLASSES:
            raise RecipeError(f"studies.view_names: {word!r} is {known!r}; it must be one of {', '.join(CLASSES)}")


def chosen(images: Images, views: Sequence[str], own: Mapping[str, str] | None = None) -> tuple[tuple[str, str], ...]:
    """The images of the wanted views, in the wanted order; the order within one view is the source's.

    A view may be wanted by its class or by the archive's own word (`PA`); it is stored as it was wanted.
    """
    named = [(path, name if name in views else view_class(name, own)) for path, name in images]
    return tuple(sorted((i for i in named if i[1] in views), key=lambda i: list(views).index(i[1])))
