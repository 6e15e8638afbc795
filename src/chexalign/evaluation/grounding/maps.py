"""Attention maps for the page: what both policies look at while they read the same sentence, laid over the film."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from chexalign.data.images import load_image
from chexalign.evaluation.grounding.pointing import measure
from chexalign.evaluation.grounding.words import Statement, places
from chexalign.jsonl import atomic_write, write_json
from chexalign.records import Study
from chexalign.run.folder import Run
from chexalign.run.studies import image_root

STUDIES, FINDINGS = 4, 3  # of the page, the first that state a finding: not chosen by how well they went # our choice
SIDE = 224  # pixels of a map's longer side
HEAT, EDGE = (255, 122, 0), (90, 200, 255)  # orange attention, blue box: apart for every kind of colour vision
STRONGEST = 0.7  # opacity of the strongest attention


def write_maps(
    run: Run,
    studies: Sequence[Study],
    texts: Sequence[tuple[str, list[int]]],
    stated: Sequence[Mapping[str, Statement]],
    maps: Mapping[str, Sequence[np.ndarray]],
) -> None:
    """evaluation/grounding_maps.json and examples/*.jpg; `maps` holds per policy and study (T, rows, columns).

    `texts` and `stated` are the studies' reference reports and what these state, by finding.
    """
    rows = list[dict[str, Any]]()
    for i, study in enumerate(studies):
        if len(rows) == STUDIES:
            break
        if not stated[i]:
            continue
        film = load_image(image_root(run), study.images[0][0])
        if max(film.size) > SIDE:
            film.thumbnail((SIDE, SIDE))
        study_maps = {which: of_studies[i] for which, of_studies in maps.items()}
        shown = [
            _statement(run, study, film, texts[i][0], statement, study_maps)
            for statement in list(stated[i].values())[:FINDINGS]
        ]
        rows.append({"study_id": study.study_id, "statements": shown})
    write_json(run.path("evaluation/grounding_maps.json"), rows)


def _statement(
    run: Run, study: Study, film: Image.Image, text: str, statement: Statement, maps: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The files and words of one finding. Both maps share one scale, so that they can be compared."""
    boxes = places(study).get(statement.label, ())
    seen = {which: attention[list(statement.tokens)].mean(0) for which, attention in maps.items()}
    shares = {which: m / max(float(m.sum()), 1e-12) for which, m in seen.items()}
    top = max(float(m.max()) for m in shares.values())
    start, end = statement.sentence
    words = text[start:end]
    blank = len(words) - len(words.lstrip())
    mark = {"start": statement.mention[0] - start - blank, "end": statement.mention[1] - start - blank}
    files = {
        which: _save(run, overlay(film, m / top, boxes), study, statement.label, which) for which, m in shares.items()
    }
    scores = {which: measure(m, boxes) if boxes else None for which, m in seen.items()}
    return {"label": statement.label, "sentence": words.strip(), **mark, "files": files, "scores": scores}


def overlay(film: Image.Image, heat: np.ndarray, boxes: Sequence[Sequence[float]]) -> Image.Image:
    """The film in grey, the heat (rows, columns) in 0–1 over it in orange, and the boxes' outlines."""
    scale = SIDE / max(film.size)
    size = max(1, round(film.width * scale)), max(1, round(film.height * scale))
    grey = film.convert("L").resize(size, Image.Resampling.BICUBIC).convert("RGB")
    alpha = Image.fromarray(np.rint(255 * STRONGEST * np.clip(heat, 0, 1)).astype(np.uint8))
    picture = Image.composite(Image.new("RGB", size, HEAT), grey, alpha.resize(size, Image.Resampling.BILINEAR))
    pen = ImageDraw.Draw(picture)
    for x0, y0, x1, y1 in boxes:
        corners = [round(v * n) for v, n in zip((x0, y0, x1, y1), (*size, *size), strict=True)]
        corners[2:] = [min(v, n - 1) for v, n in zip(corners[2:], size, strict=True)]
        pen.rectangle(corners, outline=EDGE, width=2)
    return picture


def _save(run: Run, picture: Image.Image, study: Study, label: str, which: str) -> str:
    key = "\x1f".join((study.study_id, label, which))
    name = f"examples/map-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}.jpg"
    with atomic_write(run.path(name), "wb") as handle:
        picture.save(handle, format="JPEG", quality=85)
    return name
