"""Fill a page template: escaped, with the house's style."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from chexalign.report import wording


def fill(template: str, **values: Any) -> str:
    """A template of this package with the house's style; every value is escaped unless it is markup of ours."""
    package = files("chexalign.report") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = environment.from_string(package.joinpath(template).read_text(encoding="utf-8"))
    style = Markup(package.joinpath("style.css").read_text(encoding="utf-8"))
    return source.render(style=style, dash=wording.DASH, **values)
