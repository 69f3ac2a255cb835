"""Drawing of attributions: signed maps over images, and a canvas to lay them out on.

A map is drawn like ink on a light gray print of the image: zero leaves the print unchanged, and
colors match the color bar.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from leuk.data.decode import LIT
from leuk.explain.explainer import Attribution
from leuk.store.atomic import whole_file

SIGNED, UNSIGNED = "PuOr_r", "Greens"
"""Color maps in which zero is white; color-blind readers distinguish orange from purple."""

HEALTHY, LEUKEMIC = "#0072B2", "#D55E00"
"""Colors of the classes, distinct for color-blind readers too (Okabe & Ito 2008)."""

_TITLES = {
    "gradcam": "Grad-CAM",
    "rollout": "attention rollout",
    "shap_pixels": "SHAP, pixels",
    "shap_regions": "SHAP, regions",
    "shap_patches": "SHAP, patches",
    "lime": "LIME, superpixels",
    "lime_patches": "LIME, patches",
}
_MEASURES = {
    "gradcam": "activation x gradient of the log-odds of leukemia",
    "rollout": "share of [CLS] by attention rollout",
    "lime": "weight in a linear fit to the log-odds of leukemia",
    "lime_patches": "weight in a linear fit to the log-odds of leukemia",
}
_CONTRIBUTION = "contribution to the log-odds of leukemia"

_PRINT = 0.45
"""Darkest gray of a print, 0 being white and 1 black."""

_DPI = 110
_FONT = 8

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Drawn:
    """Maps of a method, prepared for drawing on a common scale.

    Attributes:
        title: the method's display name.
        label: quantity and unit of the color bar.
        values: ``float32 (B, R, R)``; for superpixels and patches the value of the whole segment.
        usable: ``bool (B,)``; False for degenerate maps, which are not drawn.
        limit: end of the color bar, on both sides if the method is signed.
        signed: whether negative values are evidence against leukemia.
        segments: ``int64 (B, R, R)``, -1 outside all segments; None if the unit is a pixel.
        notes: quality measures of each map, as text.
    """

    title: str
    label: str
    values: Pixels
    usable: npt.NDArray[np.bool_]
    limit: float
    signed: bool
    segments: npt.NDArray[np.int64] | None
    notes: Sequence[str]

    @property
    def colors(self) -> str:
        """Name of the color map."""
        return SIGNED if self.signed else UNSIGNED

    def over(self, position: int, cell: Pixels) -> Pixels:
        """Draw a map over its image ``(R, R, 3)``; return RGB ``(R, R, 3)``."""
        if not self.usable[position]:
            return printed(cell)
        low = -self.limit if self.signed else 0.0
        share = (self.values[position] - low) / (self.limit - low)
        inked = colormaps[self.colors](share.clip(0, 1))[..., :3]
        return np.asarray(inked * printed(cell), np.float32)


def drawn_of(name: str, attribution: Attribution) -> Drawn:
    """Prepare maps for drawing, with scale, title and label.

    The scale ends at the 99th percentile of the values, so that a few extreme pixels do not make
    the others pale. Superpixels and patches show the value of the whole segment, the quantity that
    their methods estimate.

    Args:
        name: identifier of the method.
        attribution: the maps.
    """
    values, segments = attribution.maps.numpy(), None
    unit = "pixel"
    if attribution.segments is not None:
        segments, unit = attribution.segments.numpy(), attribution.unit
        values = values * sizes_of(segments)
    usable = ~attribution.degenerate.numpy()
    return Drawn(
        title_of(name),
        f"{_MEASURES.get(name, _CONTRIBUTION)}, per {unit}",
        values,
        usable,
        limit_of(values[usable]),
        attribution.signed,
        segments,
        _notes(attribution.checks, len(values)),
    )


def title_of(name: str) -> str:
    """Display name of a method."""
    return _TITLES.get(name, name)


def limit_of(values: Pixels) -> float:
    """End of the color scale: the 99th percentile of the magnitudes."""
    magnitudes = np.abs(values)
    if not magnitudes.any():
        return 1.0
    return float(np.percentile(magnitudes, 99)) or float(magnitudes.max())


def sizes_of(segments: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Size in pixels of the segment of each pixel, ``(B, R, R)``; 0 outside all segments."""
    sizes = np.zeros(segments.shape, np.float32)
    for one, size in zip(segments, sizes, strict=True):
        counts = np.bincount(one.ravel() + 1)
        counts[0] = 0
        size[:] = counts[one + 1]
    return sizes


def _notes(checks: Mapping[str, Tensor], count: int) -> list[str]:
    named = {name.replace("_", " ").replace("r2", "R²"): of.tolist() for name, of in checks.items()}
    return [
        ", ".join(f"{name} {_short(values[position])}" for name, values in named.items())
        for position in range(count)
    ]


def _short(value: float) -> str:
    return "< 0.01" if 0 <= value < 0.005 else f"{value:.2f}"


def printed(cell: Pixels) -> Pixels:
    """Print an image ``(R, R, 3)`` in [0, 1] in light gray on white, ``(R, R, 3)``."""
    gray = cell.mean(axis=2)
    mask = cell.max(axis=2) > LIT / 255
    light = np.ones_like(gray)
    if mask.any():
        low, high = np.percentile(gray[mask], (2, 98))
        shade = (high - gray[mask]) / max(high - low, 1e-6)
        light[mask] = 1 - _PRINT * (0.2 + 0.8 * shade.clip(0, 1))
    return np.repeat(light[..., None], 3, axis=2).astype(np.float32)


def to_pixels(images: Tensor) -> Pixels:
    """Convert images ``(B, 3, R, R)`` to arrays ``(B, R, R, 3)`` for drawing."""
    return np.asarray(images.permute(0, 2, 3, 1).float().cpu().numpy().clip(0, 1))


class Canvas:
    """Figure laid out in inches from its upper left corner, without a slow layout engine.

    Args:
        width: width in inches.
        height: height in inches.
    """

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height))
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.width, self.height = width, height

    def image(self, pixels: Pixels, left: float, top: float, side: float) -> None:
        """Draw RGB ``(R, R, 3)`` as a square."""
        self._image(pixels, (left, left + side, top + side, top))

    def _image(self, pixels: Pixels, extent: tuple[float, float, float, float]) -> None:
        self.axes.imshow(pixels, extent=extent, aspect="auto", interpolation="nearest")

    def text(self, text: str, left: float, top: float, size: float = _FONT, **how: Any) -> None:
        """Write text below a point, without math markup; ``how`` overrides Matplotlib's options."""
        how = {"va": "top", "parse_math": False, **how}
        self.axes.text(left, top, text, fontsize=size, **how)

    def map(self, drawn: Drawn, position: int, cell: Pixels, place: Sequence[float]) -> None:
        """Draw a map over its image; ``place`` is left, top and side."""
        left, top, side = place
        self.image(drawn.over(position, cell), left, top, side)
        if not drawn.usable[position]:
            middle = {"ha": "center", "va": "center", "style": "italic"}
            self.text("degenerate", left + side / 2, top + side / 2, 10, **middle)

    def borders(self, segments: npt.NDArray[np.int64], place: Sequence[float], color: str) -> None:
        """Draw the borders of segments ``(R, R)``; ``place`` is left, top and side."""
        left, top, side = place
        lines = _edges(segments) * (side / len(segments)) + np.array([left, top])
        self.axes.add_collection(LineCollection(list(lines), colors=color, linewidths=0.6))

    def bar(self, drawn: Drawn, left: float, top: float, width: float) -> None:
        """Draw a color bar with its limits and label, 0.62 inches high."""
        shades = colormaps[drawn.colors](np.linspace(0, 1, 129))[None, :, :3]
        self._image(shades, (left, left + width, top + 0.09, top))
        ends = (-drawn.limit, 0, drawn.limit) if drawn.signed else (0, drawn.limit)
        aligned = ("left", "center", "right") if drawn.signed else ("left", "right")
        for end, offset, side in zip(ends, np.linspace(0, width, len(ends)), aligned, strict=True):
            self.text(f"{end:.2g}", left + offset, top + 0.11, 7, ha=side)
        lines = textwrap.fill(drawn.label, max(12, int(width * 72 / 3.7)))
        self.text(lines, left + width / 2, top + 0.24, 7, ha="center")

    def save(self, path: Path) -> None:
        """Write a PNG atomically."""
        self.axes.set(xlim=(0, self.width), ylim=(self.height, 0))
        with whole_file(path) as temporary:
            self.figure.savefig(temporary, dpi=_DPI)


def _edges(segments: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Pixel edges between segments, ``(M, 2, 2)``: two end points, each x and y in pixels."""
    down, right = np.nonzero(segments[:, 1:] != segments[:, :-1])
    upright = np.stack([right + 1, down, right + 1, down + 1], axis=1)
    down, right = np.nonzero(segments[1:] != segments[:-1])
    level = np.stack([right, down + 1, right + 1, down + 1], axis=1)
    return np.concatenate([upright, level]).reshape(-1, 2, 2).astype(np.float64)


def save_overlays(
    path: Path, images: Tensor, drawn: Drawn, captions: Sequence[str], title: str
) -> None:
    """Draw each image beside its map, in one PNG.

    Args:
        path: output file.
        images: ``(B, 3, R, R)`` in [0, 1].
        drawn: the map of each image.
        captions: a caption per image.
        title: title of the whole figure.
    """
    side, gap, head, columns = 1.55, 0.12, 0.75, 4
    across = min(columns, len(images))
    wide, high = 2 * side + 2 * gap, side + 0.3
    down = -(-len(images) // columns)
    canvas = Canvas(gap + max(across * wide, 6.5), head + down * high + 0.75)
    canvas.text(title, gap, 0.1, 11)
    for position, (cell, caption) in enumerate(zip(to_pixels(images), captions, strict=True)):
        row, column = divmod(position, columns)
        left, top = gap + column * wide, head + row * high
        canvas.text(caption, left, top - 0.04, va="bottom")
        canvas.image(cell, left, top, side)
        canvas.map(drawn, position, cell, (left + side + 0.03, top, side))
    canvas.bar(drawn, gap, head + down * high - 0.1, 5.0)
    canvas.save(path)
