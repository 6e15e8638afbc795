"""One attention map against the boxes of one finding: pointing game, share of attention, and what chance would score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

REACH = 15 / 224  # of the image's side: the pointing game's 15 pixels (Zhang et al., IJCV 2018) on its 224-pixel images
FINE = 24  # subdivisions of a patch's side when a box cuts it # our choice
METRICS = ("grounding_pointing", "grounding_mass", "grounding_lift", "chance_pointing", "chance_mass")
Boxes = Sequence[Sequence[float]]  # (x0, y0, x1, y1) in fractions of the image
Grid = np.ndarray  # (rows, columns)


def coverage(boxes: Boxes, rows: int, columns: int) -> Grid:
    """The share of each patch that lies in one of the boxes, (rows, columns)."""
    y, x = ((np.arange(n * FINE) + 0.5) / (n * FINE) for n in (rows, columns))
    inside = np.zeros((len(y), len(x)), bool)
    for x0, y0, x1, y1 in boxes:
        inside |= ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))
    return inside.reshape(rows, FINE, columns, FINE).mean((1, 3))


def within_reach(boxes: Boxes, rows: int, columns: int) -> Grid:
    """Patches whose centre lies in a box or no further from it than REACH, (rows, columns) of booleans."""
    y, x = ((np.arange(n) + 0.5) / n for n in (rows, columns))
    near = np.zeros((rows, columns), bool)
    for x0, y0, x1, y1 in boxes:
        away_x, away_y = (np.maximum(np.maximum(low - c, c - high), 0.0) for low, c, high in ((x0, x, x1), (y0, y, y1)))
        near |= np.hypot(away_y[:, None], away_x) <= REACH
    return near


def measure(attention: Grid, boxes: Boxes) -> dict[str, float] | None:
    """The scores of one map, (rows, columns), and what uniform attention would score; None without any attention.

    Pointing is 1 where the strongest patch is within reach of a box (the share of the strongest ones that are, where
    several are equal). Mass is the boxes' share of the attention to the image; lift is mass over the boxes' area.
    """
    total = float(attention.sum())
    if total <= 0:
        return None
    inside, near = coverage(boxes, *attention.shape), within_reach(boxes, *attention.shape)
    area, mass = float(inside.mean()), float((attention * inside).sum()) / total
    scores = (float(near[attention == attention.max()].mean()), mass, mass / area, float(near.mean()), area)
    return dict(zip(METRICS, scores, strict=True))
