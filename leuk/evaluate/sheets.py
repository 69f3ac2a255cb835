"""Pictures of made cells beside real ones."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from leuk.evaluate.features import Images

_INCH = 0.9
"""A cell."""

_MARGIN = 1.4
"""Inches for the names of the rows."""


def save_rows(path: Path, rows: Mapping[str, Images]) -> None:
    """Write named rows of cells.

    Args:
        path: the PNG.
        rows: name to ``uint8 (N, R, R, 3)``.
    """
    most = max(map(len, rows.values()))
    width = _MARGIN + _INCH * most
    figure = Figure(figsize=(width, _INCH * len(rows)))
    axes = figure.subplots(len(rows), most, squeeze=False)
    for (name, cells), line in zip(rows.items(), axes, strict=True):
        for axis in line:
            axis.axis("off")
        for axis, cell in zip(line, cells, strict=False):
            axis.imshow(cell)
        line[0].text(-0.1, 0.5, name, ha="right", va="center", transform=line[0].transAxes)
    figure.subplots_adjust(left=_MARGIN / width, right=1, top=1, bottom=0, wspace=0.03, hspace=0.03)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
