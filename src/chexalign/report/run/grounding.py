"""The page's section on where the models look: attention maps before and after, and the scores against known places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from chexalign.report.inputs import RunFiles, image_uri, mapping, read_json
from chexalign.report.run.tables import SYMBOLS, Value, value
from chexalign.report.wording import DASH, cell, count, number, percent, score, verdict, whole

METRICS = {  # code → (name, code of what chance would score)
    "grounding_pointing": ("Pointing game: the strongest patch lies in the finding's box", "chance_pointing"),
    "grounding_mass": ("Share of the attention that lies in the box", "chance_mass"),
    "grounding_lift": ("That share over the box's share of the image", None),
}
ROWS = {  # where the block lies in `grounding` → what it is
    (): "Reference report, the finding's sentence",
    ("stage_1",): "The same, what stage 1 brought",
    ("stage_2",): "The same, what stage 2 brought",
    ("controls", "other_words"): "Control: the report's other sentences",
    ("controls", "other_image"): "Control: another study's image",
    ("own",): "Their own reports",
}
MODELS = {"baseline": "Baseline", "aligned": "Aligned"}


@dataclass(frozen=True)
class Line:
    """One line of a score table."""

    name: str
    baseline: Value
    aligned: Value
    difference: Value
    symbol: str
    meaning: str
    chance: str
    n: str


@dataclass(frozen=True)
class Map:
    """One model's attention over the film, and its scores in words."""

    title: str
    image: str | None
    caption: str


@dataclass(frozen=True)
class Shown:
    """A sentence of a study's reference report with both maps."""

    study_id: str
    label: str
    sentence: Markup
    maps: tuple[Map, ...]


def grounding_section(run: RunFiles) -> dict[str, Any] | None:
    """What the template shows; None where the run did not measure it."""
    found = run.results.grounding if run.results else None
    if found is None:
        return None
    rows = read_json(run.folder / "evaluation" / "grounding_maps.json", list) or []
    grid = [whole(count(n)) for n in found.get("grid") or []]
    return {
        "abstained": str(found.get("abstained") or ""),
        "places": bool(found.get("places")),
        "tables": [(name, _lines(found, code, chance)) for code, (name, chance) in METRICS.items()],
        "findings": _findings(mapping(found.get("findings"))),
        "counts": {k: whole(count(v)) for k, v in mapping(found.get("counts")).items()},
        "n_studies": whole(count(found.get("n_studies"))),
        "grid": " × ".join(grid) or DASH,
        "shown": [s for row in rows for s in _shown(run, mapping(row))],
    }


def _lines(found: Mapping[str, Any], code: str, chance: str | None) -> list[Line]:
    lines = []
    for path, name in ROWS.items():
        block: Any = found
        for part in path:
            block = mapping(block).get(part)
        block = mapping(block)
        if not block and path[:1] != ("controls",):
            continue
        before, after = cell(block.get("baseline"), code), cell(block.get("aligned"), code)
        change = cell(block.get("difference"), code)
        symbol, meaning = SYMBOLS[verdict(change)]
        by_luck = [score(cell(block.get(which), chance).mean) if chance else "1" for which in MODELS]
        lines.append(
            Line(
                name,
                value(before),
                value(after),
                value(change, signed=True),
                symbol,
                meaning,
                " / ".join(dict.fromkeys(by_luck)),
                " / ".join(dict.fromkeys(whole(c.n) for c in (before, after))),
            )
        )
    return lines


def _findings(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Finding, n, chance, baseline, aligned: the pointing game on the reference reports."""
    rows = []
    for label, sides in found.items():
        before, after = mapping(mapping(sides).get("baseline")), mapping(mapping(sides).get("aligned"))
        numbers = [before.get("chance_pointing"), before.get("grounding_pointing"), after.get("grounding_pointing")]
        rows.append((str(label), whole(count(before.get("n"))), *(score(number(v)) for v in numbers)))
    return rows


def _shown(run: RunFiles, row: dict[str, Any]) -> list[Shown]:
    shown = []
    for said in row.get("statements") or []:
        said = mapping(said)
        text, start, end = str(said.get("sentence") or ""), count(said.get("start")) or 0, count(said.get("end")) or 0
        shown.append(
            Shown(
                study_id=str(row.get("study_id") or ""),
                label=str(said.get("label") or ""),
                sentence=Markup("{}<b>{}</b>{}").format(text[:start], text[start:end], text[end:]),
                maps=tuple(_map(run, said, which, title) for which, title in MODELS.items()),
            )
        )
    return shown


def _map(run: RunFiles, said: dict[str, Any], which: str, title: str) -> Map:
    name, scores = mapping(said.get("files")).get(which), mapping(mapping(said.get("scores")).get(which))
    image = image_uri(run.folder, name) if isinstance(name, str) and name else None
    if not image:
        return Map(title, None, "the map is missing")
    if not scores:
        return Map(title, image, "")
    mass, area = (percent(number(scores.get(k))) for k in ("grounding_mass", "chance_mass"))
    hit = number(scores.get("grounding_pointing"))
    found = DASH if hit is None else "hit" if hit >= 1 else "miss" if hit <= 0 else "tie"
    return Map(title, image, f"{mass} of the attention in the box ({area} of the image); pointing: {found}")
