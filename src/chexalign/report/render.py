"""Fill a page template: escaped, with the house's style."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from chexalign.jsonl import atomic_write
from chexalign.report import wording

TEMPLATES = files("chexalign.report") / "templates"


def fill(template: str, **values: Any) -> str:
    """A template of this package with the house's style; every value is escaped unless it is markup of ours."""
    source = (TEMPLATES / template).read_text(encoding="utf-8")
    return fill_text(source, style=Markup(style_sheet()), dash=wording.DASH, **values)


def put(target: Path, page: str) -> Path:
    """Write a page in one step and return its path. What UTF-8 cannot hold becomes a question mark."""
    with atomic_write(target, "wb") as handle:
        handle.write(page.encode("utf-8", "replace"))
    return target


def fill_text(source: str, **values: Any) -> str:
    """A template's source with its values, every one escaped; a name without a value is an error."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(**values)


def style_sheet() -> str:
    """The text of style.css, put inside every page so that a page is one file."""
    return (TEMPLATES / "style.css").read_text(encoding="utf-8")
