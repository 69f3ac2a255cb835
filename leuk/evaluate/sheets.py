"""Pictures of made cells beside real ones."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from leuk.evaluate.vectors import Images

_INCH = 0.9
"""A cell."""

_MARGIN = 1.4
"""Inches for the names of the rows."""

_GAP, _WHITE = 0.03, 255
"""Share of a cell that is left between two, and its color."""


def save_rows(path: Path, rows: Mapping[str, Images]) -> None:
    """Write named rows of cells.

    Args:
        path: the PNG.
        rows: name to ``uint8 (N, R, R, 3)``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows_figure(rows).savefig(path, dpi=110)


def rows_figure(rows: Mapping[str, Images]) -> Figure:
    """The same as a figure."""
    most = max(map(len, rows.values()))
    width = _MARGIN + _INCH * most
    figure = Figure(figsize=(width, _INCH * len(rows)))
    axes = figure.subplots()
    for row, (name, cells) in enumerate(rows.items()):
        strip = _side_by_side(cells)
        axes.imshow(strip, extent=(0, len(cells), row + 1 - _GAP, row), interpolation="nearest")
        axes.text(-0.1, row + 0.5, name, ha="right", va="center", parse_math=False)
    axes.set(xlim=(0, most), ylim=(len(rows), 0), aspect="auto")
    axes.axis("off")
    figure.subplots_adjust(left=_MARGIN / width, right=1, top=1, bottom=0)
    return figure


def _side_by_side(cells: Images) -> Images:
    """One image of several, with white between them."""
    gap = max(1, round(_GAP * cells.shape[1]))
    spaced = np.pad(cells, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=_WHITE)
    return np.concatenate(list(spaced), axis=1)
