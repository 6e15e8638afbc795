"""The normal chest of a phantom: anatomy drawn from ranges, its outlines, and the shadow it casts.

Lengths are fractions of the image side, x to the right and y downwards, both from 0 to 1; the patient's left is on the
image's right. `m` is the distance from the midline towards one side, `t` runs down the lung from 0 (apex) to 1 (base).
Layers are float32 (size, size) arrays of attenuation: 0 is air, about 1 is bone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from chexalign.data.phantom.ink import Layer, edge, grid, ridge, stroke

SIGN = {"right": -1.0, "left": 1.0}

RANGES = {  # name: (low, high), drawn uniformly once per patient
    "midline": (0.49, 0.51),
    "tilt": (-0.02, 0.02),  # of the patient in the image plane, in radians
    "turn": (-0.04, 0.04),  # rotation about the long axis: the lung turned away looks narrower
    "apex": (0.095, 0.14),
    "base": (0.81, 0.86),
    "width": (0.35, 0.39),  # midline to the inner chest wall at its widest
    "dome_rise": (0.09, 0.12),  # costophrenic angle to the top of the right dome
    "heart_ratio": (0.40, 0.475),  # cardiothoracic ratio of a normal heart
    "knob": (0.020, 0.035),  # how far the aortic knob bulges
    "rib_gap": (0.070, 0.082),
    "rib_phase": (0.0, 1.0),
    "rib_weight": (0.06, 0.09),
    "collar": (0.165, 0.20),  # height of the clavicles' inner ends
    "shoulder": (0.10, 0.15),
    "flank": (0.46, 0.52),  # midline to the skin; beyond 0.5 it leaves the image
    "breast": (-0.04, 0.04),  # added density; none below 0
    "gas": (-0.05, 0.22),  # how dark the stomach bubble is; none below 0
    "marker": (-1.0, 1.0),  # an "R" below 0, an "L" above
}


@dataclass(frozen=True)
class Anatomy:
    """One patient. The names and units are those of RANGES."""

    midline: float
    tilt: float
    turn: float
    apex: float
    base: float
    width: float
    dome_rise: float
    heart_ratio: float
    knob: float
    rib_gap: float
    rib_phase: float
    rib_weight: float
    collar: float
    shoulder: float
    flank: float
    breast: float
    gas: float
    marker: float


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """One patient: every measure uniform within its RANGES, independent of the others."""
    return Anatomy(**{name: float(rng.uniform(*limits)) for name, limits in RANGES.items()})


@dataclass(frozen=True)
class Lung:
    """One side: outlines as distances from the midline, one per image row (size, 1), and the mask between them."""

    m: Layer  # (size, size) distance of each pixel from the midline, negative on the other side
    inner: Layer  # mediastinal border
    outer: Layer  # chest wall
    dome: Layer  # (size, size) y of the hemidiaphragm below each pixel
    mask: Layer  # (size, size) 1 in the lung, 0 outside


@dataclass(frozen=True)
class Chest:
    """Outlines of one chest at one image size. `heart` holds the two half-widths of the heart."""

    anatomy: Anatomy
    size: int
    t: Layer  # (size, 1)
    heart: dict[str, float]
    lungs: dict[str, Lung]

    def x(self, side: str, m: Any, y: Any) -> Any:
        """The image's x of a point (m, y) of one side; numbers or arrays."""
        return self.anatomy.midline + self.anatomy.tilt * (y - 0.5) + SIGN[side] * m

    def y(self, t: Any) -> Any:
        """Height of lung level `t` (0 apex, 1 base) in fractions of the image, from the top."""
        return self.anatomy.apex + t * (self.anatomy.base - self.anatomy.apex)


def make_chest(anatomy: Anatomy, size: int, heart_ratio: float) -> Chest:
    """Outlines on a grid of `size`² pixels. `heart_ratio` is the cardiothoracic ratio: the heart's width over the chest's."""
    x, y = grid(size)
    t = np.clip((y - anatomy.apex) / (anatomy.base - anatomy.apex), 0.0, 1.0)
    u = x - anatomy.midline - anatomy.tilt * (y - 0.5)
    span = 2 * anatomy.width * heart_ratio
    heart = {"right": 0.35 * span, "left": 0.65 * span}
    lungs = {side: _lung(anatomy, side, SIGN[side] * u, t, heart[side]) for side in SIGN}
    return Chest(anatomy, size, t, heart, lungs)


def wall(t: Layer, start: float, width: float | Layer) -> Layer:
    """The lung's outer outline: a rounded apex at `start`, then out to `width`."""
    return start + (width - start) * (1.0 - (1.0 - t) ** 3.0) ** 0.58


def _lung(anatomy: Anatomy, side: str, m: Layer, t: Layer, heart: float) -> Lung:
    y = grid(len(m))[1]
    outer = wall(t, 0.13, anatomy.width * (1.0 + SIGN[side] * anatomy.turn))
    inner = _mediastinum(anatomy, side, t, heart)
    inner = inner + (0.13 - inner) * np.clip(1.0 - t / 0.08, 0.0, 1.0) ** 2.5
    rise = anatomy.dome_rise - (0.022 if side == "left" else 0.0)
    reach = np.where(m > 0.45 * anatomy.width, (m - 0.45 * anatomy.width) / (0.55 * anatomy.width), 0.0)
    fall = np.where(m < 0.45 * anatomy.width, (0.45 * anatomy.width - m) / anatomy.width, 0.0)
    dome = anatomy.base - rise + (rise + 0.01) * reach**2.4 + 0.16 * fall**2
    soft = max(0.007, 0.8 / len(m))
    mask = edge(m - inner, soft) * edge(outer - m, soft) * edge(dome - y, soft) * (y > anatomy.apex)
    return Lung(m, inner, outer, dome, mask)


def _mediastinum(anatomy: Anatomy, side: str, t: Layer, heart: float) -> Layer:
    """The border from the great vessels down to the heart, (size, 1)."""
    if side == "right":
        vessel = 0.052 + 0.012 * t
        centre, height = 0.76, 0.27
    else:
        knob = anatomy.knob * np.exp(-(((t - 0.27) / 0.055) ** 2))
        vessel = 0.048 + knob + 0.030 * np.exp(-(((t - 0.43) / 0.07) ** 2))
        centre, height = 0.83, 0.47
    bulge = heart * np.clip(1.0 - (np.abs(t - centre) / height) ** 1.7, 0.0, None) ** 0.62
    return np.maximum(vessel, bulge)


@lru_cache(maxsize=1)
def _rib_profile() -> Layer:
    """One rib and one gap over 256 phases: a soft plateau with denser margins."""
    phase = (np.arange(256) + 0.5) / 256 - 0.5
    plateau = edge(0.21 - np.abs(phase), 0.05)
    return (0.62 * plateau + 0.5 * ridge(np.abs(phase) - 0.185, 0.06)).astype(np.float32)


def _ribs(chest: Chest) -> Layer:
    """Posterior ribs, which arch, and fainter anterior ribs, which run down towards the midline."""
    anatomy, (_, y) = chest.anatomy, grid(chest.size)
    total = np.zeros((chest.size, chest.size), np.float32)
    for lung in chest.lungs.values():
        q = np.clip(lung.m / lung.outer, 0.0, 1.1)
        depth = (y - anatomy.apex) / anatomy.rib_gap + anatomy.rib_phase
        back = depth - (0.8 + 2.0 * chest.t) * np.square(q - 0.28)
        front = depth * 0.92 - 2.6 * (1.0 - q) + 0.35
        cage = edge(1.03 - q, 0.02) * edge(lung.m - 0.045, 0.02) * edge(y - anatomy.apex + 0.01, 0.02)
        cage = cage * (1.0 - 0.75 * edge(y - lung.dome, 0.02)) * (1.0 - 0.5 * edge(lung.inner - lung.m, 0.02))
        total += cage * _take(back)
        total += 0.45 * cage * _take(front) * edge(q - 0.45, 0.25) * edge(chest.t - 0.2, 0.1)
        total += 0.9 * ridge(q - 1.03, 0.045) * edge(chest.t - 0.05, 0.05)
    return anatomy.rib_weight * total


def _take(depth: Layer) -> Layer:
    return _rib_profile().take(((depth + 16.0) * 256.0).astype(np.int32) & 255)


def _bones(chest: Chest) -> Layer:
    """Clavicles, spine, shoulder blades and the heads of the arms."""
    anatomy, (_, y) = chest.anatomy, grid(chest.size)
    u = chest.lungs["left"].m
    column = edge(0.036 - np.abs(u), 0.012) * (0.85 + 0.15 * np.cos((y / 0.052 + anatomy.rib_phase) * 2 * np.pi))
    total = 0.10 * column
    for side, lung in chest.lungs.items():
        m = lung.m - SIGN[side] * 0.3 * anatomy.turn
        centre = anatomy.collar - 0.15 * m + 0.010 * np.sin(17.0 * m)
        bar = edge(0.0125 - np.abs(y - centre), 0.005) + 0.5 * ridge(np.abs(y - centre) - 0.011, 0.006)
        total += 0.13 * bar * edge(m - 0.022, 0.008) * edge(0.40 - m, 0.02)
        arm = np.hypot(lung.m - 0.475, np.maximum(anatomy.collar + 0.01 - y, 0.12 * (y - anatomy.collar)))
        total += 0.07 * edge(0.052 - arm, 0.014) * edge(0.25 - y + anatomy.collar, 0.25)
        blade = lung.m - 0.415 + 0.10 * (y - anatomy.collar)
        total += (
            0.03 * edge(blade, 0.008) * edge(0.05 - blade, 0.05) * edge(0.20 - np.abs(y - anatomy.collar - 0.17), 0.05)
        )
    return total


def _soft_tissue(chest: Chest) -> Layer:
    """Neck, shoulders, flanks, breasts and the organs below the diaphragm."""
    anatomy, (_, y) = chest.anatomy, grid(chest.size)
    u = chest.lungs["left"].m
    reach = np.abs(u)
    skin = y + 0.06 - (anatomy.shoulder + 0.06) * np.clip((reach - 0.075) / 0.42, 0.0, 1.0) ** 0.75
    trunk = np.clip(skin / 0.10, 0.0, 1.0) ** 0.6
    gap = edge(reach - anatomy.flank, 0.012) * edge(y - 0.40 - 1.5 * (reach - anatomy.flank), 0.03)
    total = (0.55 + 0.10 * y - 0.25 * np.square(u)) * trunk * (1.0 - 0.85 * gap)
    for side, lung in chest.lungs.items():
        total += 0.15 * edge(y - lung.dome, 0.012) * edge(lung.m, 0.03) * edge(lung.outer + 0.02 - lung.m, 0.02)
        if anatomy.breast > 0:
            total += anatomy.breast * edge(1.0 - np.hypot((lung.m - 0.22) / 0.19, (y - 0.66) / 0.17), 0.12)
        if side == "left" and anatomy.gas > 0:
            total -= _stomach(chest, lung, y)
    return total


def _stomach(chest: Chest, lung: Lung, y: Layer) -> Layer:
    """The gas bubble under the left dome, flat below because the patient stands."""
    top = chest.anatomy.base - chest.anatomy.dome_rise + 0.022
    bubble = edge(1.0 - np.hypot((lung.m - 0.17) / 0.075, (y - top - 0.055) / 0.040), 0.15)
    return chest.anatomy.gas * bubble * edge(top + 0.075 - y, 0.006)


def _middle(chest: Chest) -> Layer:
    """Mediastinum and heart, lighter towards the middle, and the dark column of the trachea."""
    anatomy, (_, y) = chest.anatomy, grid(chest.size)
    total = np.zeros((chest.size, chest.size), np.float32)
    for lung in chest.lungs.values():
        depth = np.clip(1.0 - lung.m / lung.inner, 0.0, 1.0)
        height = edge(y - anatomy.apex, 0.1) * edge(lung.dome + 0.03 - y, 0.05)
        total += (0.04 + 0.09 * np.sqrt(depth)) * edge(lung.m, 0.01) * (depth > 0) * height
    u = chest.lungs["left"].m - 0.15 * anatomy.turn
    carina = chest.y(0.31)
    total -= 0.15 * edge(0.019 - np.abs(u), 0.008) * edge(carina - y, 0.02)
    fork = np.abs(u) - 0.008 - 0.9 * (y - carina)
    return total - 0.09 * ridge(fork, 0.02) * edge(y - carina, 0.01) * edge(0.065 - np.abs(u), 0.02)


HILA = {"right": (0.46, 0.072), "left": (0.42, 0.080)}  # side: (t, m); the left hilum is the higher
VESSELS = (  # generation: (branches per lung or per parent, length, spread of direction in radians, width, weight)
    (11, 0.24, 0.10, 0.0055, 0.055),
    (3, 0.14, 0.55, 0.0034, 0.055),
    (2, 0.08, 0.60, 0.0022, 0.050),
)


def vessels(rng: np.random.Generator, chest: Chest) -> Layer:
    """Pulmonary vessels: trees that leave the two hila, branch and fade towards the chest wall."""
    total = np.zeros((chest.size, chest.size), np.float32)
    stems, _, scatter, _, _ = VESSELS[0]
    sign = np.repeat([SIGN[side] for side in HILA], stems)
    x = np.repeat([chest.x(side, m, chest.y(t)) for side, (t, m) in HILA.items()], stems)
    y = np.repeat([chest.y(t) for t, _ in HILA.values()], stems) + np.tile(np.linspace(-0.045, 0.055, stems), 2)
    angle = np.tile(np.linspace(-1.15, 1.35, stems), 2) + rng.normal(0.0, scatter, 2 * stems)
    for generation, (_, length, _, width, weight) in enumerate(VESSELS):
        n = max(8, int(1.3 * length * chest.size))
        s = np.linspace(0.0, 1.0, n)
        reach = length * rng.uniform(0.7, 1.15, angle.shape) * (1.0 + 0.6 * np.clip(np.sin(angle), -0.3, 1.0))
        bend = angle[:, None] + rng.normal(0.0, 0.30, angle.shape)[:, None] * s
        px = x[:, None] + (sign * reach)[:, None] * s * np.cos(bend)
        py = y[:, None] + reach[:, None] * s * np.sin(bend)
        total += stroke(chest.size, px, py, width, weight * (1.0 - 0.75 * s))
        if generation + 1 < len(VESSELS):
            children, _, spread, _, _ = VESSELS[generation + 1]
            at = rng.integers(n // 4, n, (len(angle), children))
            rows = np.arange(len(angle))[:, None]
            x, y = px[rows, at].ravel(), py[rows, at].ravel()
            angle = (bend[rows, at] + spread * rng.uniform(-1.0, 1.0, at.shape)).ravel()
            sign = np.repeat(sign, children)
    return total


def hila(chest: Chest) -> Layer:
    """The roots of the lungs."""
    total = np.zeros((chest.size, chest.size), np.float32)
    y = grid(chest.size)[1]
    for side, (t, m) in HILA.items():
        distance = np.square((chest.lungs[side].m - m - 0.008) / 0.035) + np.square((y - chest.y(t)) / 0.060)
        total += 0.16 * np.exp(-distance)
    return total


def frame(chest: Chest) -> Layer:
    """All that no finding changes: soft tissue, bones and the trachea, without air and vessels."""
    return _soft_tissue(chest) + _middle(chest) + _ribs(chest) + _bones(chest)
