"""Figures with rows of synthetic and real images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from leuk.evaluate.vectors import Images

_INCH = 0.9
"""Side of an image in the figure."""

_MARGIN = 1.4
"""Inches for the names of the rows."""

_GAP, _WHITE = 0.03, 255
"""Width of the gap between images, as a share of an image, and its gray level."""


def save_rows(path: Path, rows: Mapping[str, Images]) -> None:
    """Write named rows of images.

    Args:
        path: PNG file.
        rows: name of each row to ``uint8 (N, R, R, 3)``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows_figure(rows).savefig(path, dpi=110)


def rows_figure(rows: Mapping[str, Images]) -> Figure:
    """Draw the rows of :func:`save_rows` as a figure."""
    most = max(map(len, rows.values()))
    width = _MARGIN + _INCH * most
    figure = Figure(figsize=(width, _INCH * len(rows)))
    axes = figure.subplots()
    for row, (name, images) in enumerate(rows.items()):
        strip = _side_by_side(images)
        axes.imshow(strip, extent=(0, len(images), row + 1 - _GAP, row), interpolation="nearest")
        axes.text(-0.1, row + 0.5, name, ha="right", va="center", parse_math=False)
    axes.set(xlim=(0, most), ylim=(len(rows), 0), aspect="auto")
    axes.axis("off")
    figure.subplots_adjust(left=_MARGIN / width, right=1, top=1, bottom=0)
    return figure


def _side_by_side(images: Images) -> Images:
    """Join images horizontally, with white gaps."""
    gap = max(1, round(_GAP * images.shape[1]))
    spaced = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=_WHITE)
    return np.concatenate(list(spaced), axis=1)
