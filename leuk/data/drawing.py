"""Drawing of phantom images: a segmented lymphocyte or blast on black.

The classes overlap in size and chromatin like the real ones, but the drawings are not based on
measurements: results on them allow no conclusion about leukemia.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from leuk.data.labels import Label

Plane = npt.NDArray[Any]
"""``float (side, side)``."""
Picture = npt.NDArray[np.uint8]

_PATCH = 0.62
"""Side of the central square with the cell, as a share of the image's side."""

_RADIUS = 0.2
"""Mean radius of a cell, as a share of the side."""

_STAIN = np.array([80.0, 31.0, 91.0])
_CYTOPLASM = np.array([104.0, 80.0, 130.0])
_DEBRIS = np.array([112.0, 48.0, 106.0])


@dataclass(frozen=True)
class Subject:
    """Parameters common to all cells of a simulated patient.

    Attributes:
        key: class letter and number in C-NMC's file names, such as ``H3``.
        label: class of the patient.
        stain: ``(3,)``, color of the nucleus relative to the mean color.
        size: relative size of the cells.
        maturity: degree of chromatin clumping; higher in healthy cells.
    """

    key: str
    label: Label
    stain: npt.NDArray[np.float64]
    size: float
    maturity: float

    @classmethod
    def draw(cls, label: Label, key: str, generator: np.random.Generator) -> "Subject":
        """Draw the parameters of a patient of a class."""
        sick = label is Label.ALL
        return cls(
            key=key,
            label=label,
            stain=generator.normal(1, [0.05, 0.08, 0.05]),
            size=(1.04 if sick else 0.96) * generator.normal(1, 0.03),
            maturity=(-1.0 if sick else 1.0) + generator.normal(0, 0.25),
        )

    def renamed(self, key: str) -> "Subject":
        """Return the same patient with another subject number."""
        return replace(self, key=key)


def draw_cell(subject: Subject, size: int, generator: np.random.Generator) -> Picture:
    """Draw a cell of a patient on black.

    Returns:
        ``uint8 (size, size, 3)``, RGB.
    """
    side = round(_PATCH * size)
    radius = _RADIUS * size * subject.size * generator.normal(1, 0.09)
    x, y = _coordinates(side, radius, generator)
    border = _border(np.arctan2(y, x), generator)
    inside = _bitten(np.hypot(x, y) - border, x, y, generator)
    maturity = subject.maturity + generator.normal(0, 0.8)
    light = _chromatin(side, radius, maturity, generator) + _clefts(x, y, generator)
    stain = _STAIN * subject.stain * generator.normal(1, 0.04) * generator.normal(1, 0.02, 3)
    picture = (1 + light)[..., None] * stain
    cytoplasm = _cytoplasm(inside, x, y, subject.label, generator)[..., None]
    picture += cytoplasm * (_CYTOPLASM * generator.normal(1, 0.06) - picture)
    rim = np.exp(-((inside + 0.04) ** 2) / (2 * 0.035**2))
    picture += rim[..., None] * np.array([2.0, 8.0, 22.0])
    picture = np.clip(picture, 14, 255) * (inside < 0)[..., None]
    if generator.random() < 0.12:
        _add_satellite(picture, inside, x, y, generator)
    start = (size - side) // 2
    drawn = np.zeros((size, size, 3), np.uint8)
    drawn[start : start + side, start : start + side] = picture.round().clip(0, 255)
    return drawn


def rephotograph(picture: Picture, generator: np.random.Generator) -> Picture:
    """Return another photograph of the same cell: other light and focus, slightly shifted."""
    lit = picture.max(axis=2, keepdims=True) > 0
    gain = generator.normal(1, 0.05) * generator.normal(1, 0.01, 3)
    height, width = picture.shape[:2]
    down, right = generator.integers(-height // 50, height // 50 + 1, 2)
    again = np.roll((picture * gain).clip(14, 255) * lit, (down, right), axis=(0, 1))
    softer = Image.fromarray(again.astype(np.uint8)).resize(
        (round(0.9 * width), round(0.9 * height)), Image.Resampling.BOX
    )
    soft = np.asarray(softer.resize((width, height), Image.Resampling.BICUBIC))
    photograph: Picture = soft * np.roll(lit, (down, right), axis=(0, 1))
    return photograph


def _coordinates(side: int, radius: float, generator: np.random.Generator) -> tuple[Plane, Plane]:
    """Return pixel positions relative to the center of the cell, in radii."""
    middle = (side - 1) / 2 + generator.normal(0, 0.03 * side, 2)
    steps = np.arange(side, dtype=np.float32)
    x, y = np.meshgrid((steps - middle[0]) / radius, (steps - middle[1]) / radius)
    return x.astype(np.float32), y.astype(np.float32)


def _border(angle: Plane, generator: np.random.Generator) -> Plane:
    """Return the distance of an irregular border from the center at each angle, in radii."""
    border = np.ones_like(angle)
    for order, share in ((2, 0.06), (3, 0.035), (4, 0.02), (7, 0.012), (17, 0.006)):
        wobble, phase = generator.normal(0, share), generator.uniform(0, 2 * np.pi)
        border += np.float32(wobble) * np.cos(order * angle + np.float32(phase))
    return border


def _bitten(distance: Plane, x: Plane, y: Plane, generator: np.random.Generator) -> Plane:
    """Cut away a neighboring cell from some cells, along an arc or a straight edge."""
    kind = generator.random()
    towards = generator.uniform(0, 2 * np.pi)
    along = x * np.cos(towards) + y * np.sin(towards)
    if kind < 0.12:
        far = generator.uniform(1.05, 1.2)
        bite = np.hypot(x - far * np.cos(towards), y - far * np.sin(towards))
        distance = np.maximum(distance, np.float32(generator.uniform(0.2, 0.4)) - bite)
    elif kind < 0.2:
        distance = np.maximum(distance, along - np.float32(generator.uniform(0.8, 0.95)))
    return distance.astype(np.float32)


def _chromatin(side: int, radius: float, maturity: float, generator: np.random.Generator) -> Plane:
    """Draw relative brightness: fine and even in immature cells, clumped in mature cells."""
    clumped = 1 / (1 + np.exp(-1.2 * maturity))
    clumps: Plane = (0.02 + 0.13 * clumped) * _noise(side, 0.4 * radius, generator)
    grains: Plane = (0.08 - 0.045 * clumped) * _noise(side, 0.13 * radius, generator)
    return clumps + grains + 0.05 * _noise(side, 1.2 * radius, generator)


def _noise(side: int, grain: float, generator: np.random.Generator) -> Plane:
    """Draw smooth noise of unit variance with patches ``grain`` pixels wide."""
    patches = max(3, round(side / max(grain, 1)))
    coarse = Image.fromarray(generator.standard_normal((patches, patches), np.float32))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    scaled: Plane = smooth / max(float(smooth.std()), 1e-6)
    return scaled


def _clefts(x: Plane, y: Plane, generator: np.random.Generator) -> Plane:
    """Draw pale folds and spots of the nucleus."""
    light = np.zeros_like(x)
    for _ in range(generator.poisson(0.5)):
        turn, bend = generator.uniform(0, np.pi), generator.normal(0, 0.5)
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        line = across - bend * along**2 - generator.normal(0, 0.4)
        ends = np.exp(-((along - generator.normal(0, 0.4)) ** 2) / 0.18)
        light += 0.2 * ends * np.exp(-(line**2) / 0.003)
    for _ in range(generator.poisson(2)):
        spot_x, spot_y = generator.normal(0, 0.45, 2)
        width = generator.uniform(0.004, 0.015)
        light += 0.22 * np.exp(-((x - spot_x) ** 2 + (y - spot_y) ** 2) / width)
    return light


def _cytoplasm(
    distance: Plane, x: Plane, y: Plane, label: Label, generator: np.random.Generator
) -> Plane:
    """Draw the share of cytoplasm of each pixel: in some cells, a crescent on one side."""
    if generator.random() > (0.3 if label is Label.HEM else 0.2):
        return np.zeros_like(x)
    towards = generator.uniform(0, 2 * np.pi)
    shift = generator.uniform(0.06, 0.2)
    nucleus = distance + shift * (1 + x * np.cos(towards) + y * np.sin(towards)) / 2
    share: Plane = (1 / (1 + np.exp(-nucleus / 0.02))).astype(np.float32)
    return share


def _add_satellite(
    picture: npt.NDArray[np.float64],
    distance: Plane,
    x: Plane,
    y: Plane,
    generator: np.random.Generator,
) -> None:
    """Draw debris at the border of the cell that the segmentation included."""
    towards, far = generator.uniform(0, 2 * np.pi), generator.uniform(1.0, 1.15)
    from_x, from_y = x - far * np.cos(towards), y - far * np.sin(towards)
    scrap_border = generator.uniform(0.08, 0.25) * _border(np.arctan2(from_y, from_x), generator)
    scrap = (np.hypot(from_x, from_y) < scrap_border) & (distance >= 0)
    picture[scrap] = _DEBRIS * generator.normal(1, 0.1)
