"""A matplotlib figure as SVG that can share a page: no metadata, no style sheet, ids of its own."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a "$" in a finding's name is a "$"
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#6b7480",
    "axes.linewidth": 0.8,
    "axes.labelcolor": "#1d2733",
    "text.color": "#1d2733",
    "xtick.color": "#3c4753",
    "ytick.color": "#3c4753",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e7eb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "hatch.linewidth": 0.6,
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def draw(name: str, description: str, width: float, height: float, paint: Callable[[Figure], Any]) -> Markup:
    """`paint` fills a figure of `width` × `height` inches; `name` prefixes its ids, `description` is its alt text."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser's font has it
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA, transparent=True)
    return _inline(buffer.getvalue(), name, description)


def _inline(data: bytes, name: str, description: str) -> Markup:
    """The `<svg>` element alone, without name spaces, with every id and every use of it prefixed."""
    root = ElementTree.fromstring(data)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("style", "metadata"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: _prefixed(key, text, name) for key, text in element.attrib.items()}
    root.set("role", "img")
    root.set("aria-label", description)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _prefixed(key: str, text: str, name: str) -> str:
    local = key.rpartition("}")[2]
    if local == "id":
        return f"{name}-{text}"
    if local == "href":
        return text.replace("#", f"#{name}-", 1)
    if local == "style":
        text = re.sub(r"font-family:[^;]*", "font-family: inherit", text)
        text = re.sub(r"\bfont:[^;]*?([\d.]+px)[^;]*", r"font-size: \1", text)  # as matplotlib before 3.11 writes it
    return text.replace("url(#", f"url(#{name}-")
