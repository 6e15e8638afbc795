"""The pencils of the phantom: edges, ridges, strokes, clouds and blur, as float32 layers over one image.

Lengths are fractions of the image side, so that a drawing looks the same at every size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Layer = np.ndarray


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[Layer, Layer]:
    """Pixel centres: x of shape (1, size) and y of shape (size, 1)."""
    centres = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return centres[None, :], centres[:, None]


@lru_cache(maxsize=64)
def _gauss_matrix(n_out: int, n_in: int, sigma: float) -> Layer:
    """Rows that average n_in samples of [0, 1] under a Gaussian of width sigma (a fraction) at n_out places."""
    out, given = (np.arange(n_out) + 0.5) / n_out, (np.arange(n_in) + 0.5) / n_in
    weights = np.exp(-0.5 * ((out[:, None] - given[None, :]) / sigma) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def blur(layer: Layer, sigma: float) -> Layer:
    """Gaussian blur of a square layer. `sigma` in fractions of its side, at least half a pixel."""
    kernel = _gauss_matrix(len(layer), len(layer), max(sigma, 0.5 / len(layer)))
    return kernel @ layer @ kernel.T


def clouds(rng: np.random.Generator, size: int, cells: int) -> Layer:
    """A smooth random field with about mean 0 and deviation 1; `cells` is the number of lumps across the image."""
    coarse = rng.standard_normal((2 * cells, 2 * cells), dtype=np.float32)
    spread = _gauss_matrix(size, 2 * cells, 0.5 / cells)
    return 1.8 * (spread @ coarse @ spread.T)


def edge(distance: Layer, softness: float) -> Layer:
    """0 outside, 1 inside, a smooth step of total width 2 × softness where the signed distance crosses 0."""
    s = distance * (0.5 / softness)
    s = np.minimum(np.maximum(s + 0.5, 0.0), 1.0)
    return s * s * (3.0 - 2.0 * s)


def ridge(distance: Layer, half_width: float) -> Layer:
    """A smooth bump of height 1 around distance 0."""
    s = np.maximum(1.0 - np.square(distance * (1.0 / half_width)), 0.0)
    return s * s


def stroke(size: int, x: Layer, y: Layer, sigma: float, weight: Layer | float = 1.0) -> Layer:
    """Curves with a Gaussian profile of peak `weight`; each row of x and y (…, n) is one densely sampled curve."""
    sigma = max(sigma, 0.5 / size)
    step = np.hypot(np.diff(x, axis=-1, append=x[..., -1:]), np.diff(y, axis=-1, append=y[..., -1:]))
    ink = (step * size * (sigma * size * 2.5066) * weight).ravel()
    column, row = (x * size).astype(np.int64).ravel(), (y * size).astype(np.int64).ravel()
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    flat = np.bincount((row * size + column)[inside], ink[inside], minlength=size * size)
    return blur(flat.reshape(size, size).astype(np.float32), sigma)
