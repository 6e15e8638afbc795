"""What each finding does to the phantom's radiograph, and the film that records the sum.

A sign returns a `Shadow`: how much air it displaces, what density it adds, which vessel markings it hides (or, below 0,
brings out), and where it is. Adding a finding changes nothing else: the anatomy, the vessels and the film's noise have
random streams of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from chexalign.data.phantom.body import SIGN, Chest, draw_anatomy, frame, hila, make_chest, vessels, wall
from chexalign.data.phantom.ink import Layer, blur, clouds, edge, grid, ridge, stroke
from chexalign.data.phantom.law import Box, Finding

AIR = 0.40  # attenuation that a full depth of lung takes away
ZONES = {"upper": (0.18, 0.27), "middle": (0.43, 0.52), "lower": (0.66, 0.75)}  # t of a sign's centre
SPREAD = 0.6  # how far across a lung a sign may lie, as a share of the room there is
WIDE_HEART = {"mild": (0.530, 0.560), "moderate": (0.585, 0.620), "severe": (0.650, 0.700)}


@dataclass(frozen=True)
class Shadow:
    """`fill`: share of air displaced. `dense`: attenuation added. `clear`: share of vessels hidden. `place`: where."""

    place: Layer
    fill: Layer | float = 0.0
    dense: Layer | float = 0.0
    clear: Layer | float = 0.0


def _pick(chest: Chest, rng: np.random.Generator, side: str, zone: str, margin: float) -> tuple[float, float]:
    """A point (m, y) in a zone of a lung, `margin` away from its borders where the lung is wide enough."""
    lung = chest.lungs[side]
    y = chest.y(rng.uniform(*ZONES[zone]))
    row = int(y * chest.size)
    low, high = float(lung.inner[row, 0]) + margin, float(lung.outer[row, 0]) - margin
    m = (low + high) / 2 + SPREAD * rng.uniform(-0.5, 0.5) * max(high - low, 0.0)
    column = int(np.clip(chest.x(side, m, y) * chest.size, 0, chest.size - 1))
    return m, min(y, float(lung.dome[row, column]) - 0.7 * margin)


def effusion(chest: Chest, rng: np.random.Generator, side: str, finding: Finding) -> Shadow:
    """Fluid that hides the dome and the costophrenic angle and climbs the chest wall: a meniscus."""
    lung, (_, y) = chest.lungs[side], grid(chest.size)
    level, climb = {"small": (0.955, 0.13), "moderate": (0.73, 0.10), "large": (0.49, 0.10)}[finding.size or "small"]
    q = np.clip(lung.m / lung.outer, 0.0, 1.0)
    surface = chest.y(level + rng.uniform(-0.03, 0.03)) - climb * q**4 - 0.015 * np.clip(1.0 - q / 0.35, 0.0, 1.0)
    fluid = edge(lung.m - lung.inner + 0.004, 0.008) * edge(lung.outer + 0.010 - lung.m, 0.008)
    fluid *= edge(y - surface, 0.018) * edge(chest.anatomy.base + 0.04 - y, 0.02)
    return Shadow(fluid, fill=fluid, dense=0.09 * fluid * edge(lung.dome - y, 0.012), clear=fluid)


def pneumothorax(chest: Chest, rng: np.random.Generator, side: str, finding: Finding) -> Shadow:
    """Air outside a lung that has fallen from the wall: a thin pleural line, and no vessels beyond it."""
    lung, (_, y) = chest.lungs[side], grid(chest.size)
    gap, end = {"small": (0.055, 0.60), "moderate": (0.095, 0.85), "large": (0.155, 1.15)}[finding.size or "small"]
    gap *= rng.uniform(0.9, 1.1)
    apex = chest.anatomy.apex + 0.8 * gap
    t = np.clip((y - apex) / (chest.anatomy.base - apex), 0.0, 1.0)
    width = float(lung.outer.max()) - gap * np.clip(1.0 - (chest.t / end) ** 3, 0.0, 1.0)
    border = wall(t, 0.08, width)
    border = np.where(border < lung.outer - 0.006, border, lung.outer + 0.02)
    collapsed = edge(border - lung.m, 0.006) * edge(y - apex, 0.006)
    free = lung.mask * (1.0 - collapsed)
    inside = edge(lung.outer - 0.012 - lung.m, 0.008) * lung.mask
    line = inside * np.maximum(ridge(border - lung.m, 0.009) * (y > apex), ridge(y - apex, 0.009) * (lung.m < border))
    dense = 0.27 * line - 0.15 * free + 0.25 * gap * lung.mask * collapsed
    return Shadow(free, dense=dense, clear=free)


def opacity(chest: Chest, rng: np.random.Generator, side: str, finding: Finding) -> Shadow:
    """An ill-defined hazy patch; vessels still show through it."""
    lung, (_, y) = chest.lungs[side], grid(chest.size)
    m0, y0 = _pick(chest, rng, side, finding.zone or "middle", 0.08)
    width, height = rng.uniform(0.080, 0.100), rng.uniform(0.075, 0.095)
    patch = np.exp(-0.5 * (np.square((lung.m - m0) / width) + np.square((y - y0) / height)))
    patch = lung.mask * patch * np.clip(0.85 + 0.22 * clouds(rng, chest.size, 16), 0.2, 1.3)
    return Shadow(patch, fill=rng.uniform(0.62, 0.78) * patch, clear=0.4 * patch)


def consolidation(chest: Chest, rng: np.random.Generator, side: str, finding: Finding) -> Shadow:
    """A dense patch that stops straight at a fissure and holds dark air bronchograms."""
    lung, (_, y) = chest.lungs[side], grid(chest.size)
    zone = finding.zone or "middle"
    m0, y0 = _pick(chest, rng, side, zone, 0.08)
    width, height = rng.uniform(0.105, 0.13), rng.uniform(0.085, 0.105)
    lean = rng.uniform(-0.15, 0.15)
    above = zone == "upper" or (zone == "middle" and rng.random() < 0.5)
    fissure = (y0 + 0.45 * height - y if above else y - y0 + 0.45 * height) + lean * (lung.m - m0)
    distance = np.square((lung.m - m0) / width) + np.square((y - y0) / height) + 0.16 * clouds(rng, chest.size, 14)
    patch = lung.mask * edge(1.0 - distance, 0.55) * edge(fissure, 0.008)
    s = np.linspace(0.0, 1.0, chest.size // 2)
    turn = np.array([[-0.55], [-0.1], [0.35]]) + rng.normal(0.0, 0.15, (3, 1)) + rng.normal(0.0, 0.4, (3, 1)) * s
    x = chest.x(side, m0 - 0.06, y0) + SIGN[side] * 0.14 * s * np.cos(turn)
    tubes = stroke(chest.size, x, y0 + 0.14 * s * np.sin(turn), 0.0030, 1.0 - 0.6 * s)
    return Shadow(patch, fill=0.95 * patch, dense=(0.10 - 0.10 * np.minimum(tubes, 1.0)) * patch, clear=patch)


def atelectasis(chest: Chest, rng: np.random.Generator, side: str, finding: Finding) -> Shadow:
    """Two or three linear bands above the diaphragm."""
    lung = chest.lungs[side]
    s = np.linspace(-0.5, 0.5, chest.size // 2)
    bands = int(rng.integers(2, 4))
    m0, y0 = _pick(chest, rng, side, "lower", 0.075)
    reach, lean = rng.uniform(0.15, 0.20, (bands, 1)), rng.normal(rng.uniform(-0.3, 0.3), 0.06, (bands, 1))
    y = y0 + 0.028 * (np.arange(bands)[:, None] - bands / 2 + 0.5) + reach * s * lean - 0.10 * reach * (0.25 - s * s)
    x = chest.x(side, m0, y0) + SIGN[side] * (reach * s + rng.uniform(-0.03, 0.03, (bands, 1)))
    band = stroke(chest.size, x, y, 0.0070, 1.15 * np.sqrt(1.0 - np.square(1.9 * s))) * lung.mask
    haze = blur(np.minimum(band, 1.0), 0.025) * lung.mask
    return Shadow(np.maximum(band, haze), fill=0.8 * haze, dense=0.30 * np.minimum(band, 1.0))


def edema(chest: Chest, rng: np.random.Generator, side: str, finding: Finding) -> Shadow:
    """A bat wing of haze around the hilum, and short septal (Kerley) lines at the lateral base."""
    lung, (_, y) = chest.lungs[side], grid(chest.size)
    strength = {"mild": 0.30, "moderate": 0.46, "severe": 0.66}[finding.severity or "mild"] * rng.uniform(0.92, 1.08)
    reach = {"mild": 0.095, "moderate": 0.115, "severe": 0.14}[finding.severity or "mild"]
    wing = np.exp(-0.5 * (np.square((lung.m - 0.12) / reach) + np.square((y - chest.y(0.52)) / (1.35 * reach))) ** 1.5)
    wing = wing * lung.mask * np.clip(0.85 + 0.20 * clouds(rng, chest.size, 18), 0.3, 1.2)
    t = np.linspace(0.66, 0.88, 7)[:, None] + rng.normal(0.0, 0.008, (7, 1))
    row = np.minimum((chest.y(t) * chest.size).astype(int), chest.size - 1)
    s = np.linspace(0.0, 0.035, max(8, chest.size // 12))
    wall_x = chest.x(side, 0.0, 0.0) + SIGN[side] * (lung.outer[row[:, 0]] - 0.008)
    kerley = stroke(chest.size, wall_x - SIGN[side] * s, chest.y(t) + 0.0 * s, 0.0025) * lung.mask
    place = np.maximum(wing, 0.5 * np.minimum(kerley, 1.0))
    more = strength * edge(0.45 - chest.t, 0.1) * lung.mask  # cephalised vessels
    return Shadow(place, fill=strength * wing, dense=0.10 * np.minimum(kerley, 1.2), clear=-1.2 * more)


def nodule(chest: Chest, rng: np.random.Generator, side: str, finding: Finding) -> Shadow:
    """One round, sharp lesion."""
    lung, (_, y) = chest.lungs[side], grid(chest.size)
    radius = {"small": rng.uniform(0.043, 0.048), "large": rng.uniform(0.062, 0.070)}[finding.size or "small"]
    m0, y0 = _pick(chest, rng, side, finding.zone or "middle", radius + 0.012)
    distance = np.hypot(lung.m - m0, y - y0) / radius
    ball = edge(1.0 - distance, 0.14) * (0.62 + 0.38 * np.sqrt(np.clip(1.0 - distance**2, 0.0, None)))
    return Shadow(ball, dense=rng.uniform(0.40, 0.48) * ball)


def cardiomegaly(chest: Chest, rng: np.random.Generator, side: str, finding: Finding) -> Shadow:
    """The heart itself was drawn wide by `make_chest`; here is only where it is."""
    lung, (_, y) = chest.lungs[side], grid(chest.size)
    return Shadow(((lung.m >= 0) & (lung.m < lung.inner) & (chest.t > 0.5) & (y < lung.dome)).astype(np.float32))


def _path(size: int, points: Sequence[tuple[float, float]]) -> tuple[Layer, Layer]:
    """A smooth curve (x, y) that runs close to the given points."""
    corners = np.asarray(points)
    s = np.linspace(0.0, len(corners) - 1.0, 2 * size)
    window = np.ones(size // 2) / (size // 2)
    smooth = [np.interp(s, np.arange(len(corners)), corners[:, axis]) for axis in (0, 1)]
    padded = [np.pad(v, size // 4, mode="reflect", reflect_type="odd") for v in smooth]
    x, y = (np.convolve(v, window, mode="valid")[: len(s)] for v in padded)
    return x, y


def _wire(chest: Chest, points: Sequence[tuple[str, float, float]], sigma: float) -> Layer:
    x, y = _path(chest.size, [(chest.x(side, m, y), y) for side, m, y in points])
    return np.minimum(stroke(chest.size, x, y, sigma), 1.1)


def catheter(chest: Chest, rng: np.random.Generator, side: str, finding: Finding) -> Shadow:
    """A central venous catheter: from the neck or below the clavicle into the superior vena cava."""
    collar, end = chest.anatomy.collar, chest.y(rng.uniform(0.36, 0.44))
    start = [(side, 0.115, 0.0), (side, 0.085, 0.6 * collar)]
    if rng.random() < 0.5:
        start = [(side, 0.34, collar + 0.05), (side, 0.22, collar - 0.015)]
    bend = (
        [(side, 0.06, collar + 0.025)]
        if side == "right"
        else [(side, 0.05, collar + 0.02), ("right", 0.01, collar + 0.06)]
    )
    wire = _wire(chest, [*start, *bend, ("right", 0.042, collar + 0.10), ("right", 0.044, end)], 0.0042)
    return Shadow(wire, dense=0.34 * wire)


def pacemaker(chest: Chest, rng: np.random.Generator, side: str, finding: Finding) -> Shadow:
    """A generator over the upper chest and a lead through the vena cava to the right ventricle."""
    collar, (_, y) = chest.anatomy.collar, grid(chest.size)
    m0, y0 = rng.uniform(0.255, 0.295), collar + rng.uniform(0.055, 0.085)
    distance = np.power(np.abs(chest.lungs[side].m - m0) / 0.052, 4) + np.power(np.abs(y - y0) / 0.042, 4)
    box = edge(1.2 - distance, 0.35)
    inner = [("right", 0.03, collar + 0.06)] if side == "left" else []
    tip = ("left", 0.55 * chest.heart["left"], chest.y(0.93))
    lead = [(side, m0 - 0.03, y0 - 0.03), (side, 0.12, collar), *inner, ("right", 0.045, chest.y(0.45))]
    wire = _wire(chest, [*lead, ("right", 0.040, chest.y(0.70)), ("left", 0.01, chest.y(0.86)), tip], 0.0042)
    return Shadow(np.maximum(box, wire), dense=0.48 * np.maximum(box, 0.7 * wire))


def tube(chest: Chest, rng: np.random.Generator, side: str, finding: Finding) -> Shadow:
    """An endotracheal tube: two pale walls and a denser stripe in the trachea, its tip above the carina."""
    tip = chest.y(rng.uniform(0.20, 0.26))
    shift = 0.15 * chest.anatomy.turn
    rail = [_wire(chest, [("left", shift + m, 0.0), ("left", shift + m, tip)], 0.0042) for m in (-0.011, 0.011)]
    shadow = np.maximum(0.65 * rail[0], rail[1])
    return Shadow(shadow, dense=0.50 * shadow)


SIGNS = (
    cardiomegaly, effusion, opacity, consolidation, atelectasis, edema, nodule, pneumothorax, catheter, pacemaker, tube,
)  # fmt: skip
DRAW: dict[str, Callable[[Chest, np.random.Generator, str, Finding], Shadow]] = {f.__name__: f for f in SIGNS}


def box_of(place: Layer) -> Box:
    """The box, in image fractions, around all that is at least 15 % of the strongest place, with a thin margin."""
    seen = place > 0.15 * place.max()
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    low, high = (columns[0], rows[0]), (columns[-1] + 1, rows[-1] + 1)
    x0, y0 = (round(max(float(v) / len(place) - 0.01, 0.0), 4) for v in low)
    x1, y1 = (round(min(float(v) / len(place) + 0.01, 1.0), 4) for v in high)
    return x0, y0, x1, y1


GLYPHS = {
    "L": ("1000", "1000", "1000", "1000", "1000", "1000", "1111"),
    "R": ("1110", "1001", "1001", "1110", "1010", "1001", "1001"),
}


@lru_cache(maxsize=8)
def _marker(letter: str, size: int) -> Layer:
    """The letter at the edge of the patient's left or right shoulder."""
    glyph = np.array([[float(c) for c in row] for row in GLYPHS[letter]], np.float32)
    glyph = np.kron(glyph, np.ones((max(1, size // 128), max(1, size // 128)), np.float32))
    layer = np.zeros((size, size), np.float32)
    top, left = int(0.04 * size), int((0.90 if letter == "L" else 0.06) * size)
    layer[top : top + glyph.shape[0], left : left + glyph.shape[1]] = glyph
    return layer


def _film(rng: np.random.Generator, attenuation: Layer) -> np.ndarray:
    """Exposure, contrast, sharpness and grain of one film; uint8 grey levels, dense is bright."""
    size = len(attenuation)
    if rng.random() < 0.6:
        attenuation = blur(attenuation, rng.choice([0.0025, 0.0040]))
    contrast, middle, grain = rng.uniform(4.8, 5.6), rng.uniform(0.42, 0.46), rng.uniform(0.008, 0.016)
    light = 1.0 / (1.0 + np.exp(-contrast * (attenuation - middle)))
    light += grain * rng.standard_normal((size, size), dtype=np.float32)
    return np.clip(light * 250.0 + 2.5, 0.0, 255.0).astype(np.uint8)


def together(a: Box, b: Box) -> bool:
    """Whether two boxes share a point."""
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def draw(
    findings: Sequence[Finding],
    patient: Callable[[str], np.random.Generator],
    study: Callable[[str], np.random.Generator],
    size: int,
) -> tuple[np.ndarray, list[Box]]:
    """The radiograph, uint8 (size, size), and one box per finding.

    `patient` and `study` give the random stream of a name: the same patient keeps the anatomy from study to study.
    """
    image, places = draw_places(findings, patient, study, size)
    return image, [box for box, _ in places]


def draw_places(
    findings: Sequence[Finding],
    patient: Callable[[str], np.random.Generator],
    study: Callable[[str], np.random.Generator],
    size: int,
) -> tuple[np.ndarray, list[tuple[Box, tuple[Box, ...]]]]:
    """The same, and with each box the boxes of its parts: two where right and left lie apart, as in bilateral effusions."""
    anatomy = draw_anatomy(patient("anatomy"))
    ratio = anatomy.heart_ratio
    for finding in findings:
        if finding.kind == "cardiomegaly":
            ratio = study("heart").uniform(*WIDE_HEART[finding.severity or "mild"])
    chest = make_chest(anatomy, size, ratio)
    masks = chest.lungs["right"].mask + chest.lungs["left"].mask
    air, dense, marks = masks * AIR, frame(chest), masks.copy()
    boxes = list[tuple[Box, tuple[Box, ...]]]()
    for finding in findings:
        name = finding.device or finding.kind
        places = []
        for side in ("right", "left") if finding.side in (None, "bilateral") else (finding.side,):
            shadow = DRAW[name](chest, study(f"{name} {side}"), side, finding)
            air, dense, marks = air * (1.0 - shadow.fill), dense + shadow.dense, marks * (1.0 - shadow.clear)
            places.append(shadow.place)
        whole, parts = box_of(np.maximum.reduce(places)), tuple(map(box_of, places))
        boxes.append((whole, (whole,) if len(parts) == 1 or together(*parts) else parts))
    attenuation = dense - air + marks * (vessels(patient("vessels"), chest) + hila(chest))
    attenuation += _marker("L" if anatomy.marker > 0 else "R", size)
    return _film(study("film"), attenuation), boxes
