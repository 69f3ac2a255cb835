"""Pictures of attributions: the cell, and the signed map over it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from leuk.explain.explainer import Attribution

COLUMNS = 4
COLOURS = "PuOr_r"
"""Zero is white; orange and purple stay apart for colour-blind readers."""


def save_overlays(
    path: Path,
    images: Tensor,
    attribution: Attribution,
    captions: list[str],
    title: str,
    unit: str,
) -> None:
    """Draw each cell beside its map and write one PNG.

    All maps share one scale, symmetric about zero and ending at the 99th percentile of their
    magnitude; the colour bar shows it. A degenerate map is not drawn as if it meant something: its
    panel says ``degenerate``.

    Args:
        path: the PNG.
        images: ``(B, 3, H, W)`` in [0, 1].
        attribution: a map for each cell.
        captions: one a cell.
        title: over the whole picture.
        unit: what the colour bar measures.
    """
    usable = ~attribution.degenerate.numpy()
    values = attribution.maps.numpy()
    limit = float(np.percentile(np.abs(values[usable]), 99)) if usable.any() else 1.0
    scale = Normalize(-limit, limit)
    rows = -(-len(images) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * 3.2, rows * 1.95 + 0.9), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(rows, 2 * COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    cells = images.permute(0, 2, 3, 1).numpy()
    for position, (cell, caption) in enumerate(zip(cells, captions, strict=True)):
        row, column = divmod(position, COLUMNS)
        plain, over = axes[row, 2 * column], axes[row, 2 * column + 1]
        plain.imshow(cell)
        plain.set_title(caption, fontsize=7, loc="left")
        _draw(over, cell, values[position] if usable[position] else None, scale)
    bar = figure.colorbar(
        ScalarMappable(scale, COLOURS), ax=axes, location="bottom", shrink=0.4, aspect=40
    )
    bar.set_label(unit, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw(
    axis: Axes,
    cell: npt.NDArray[np.float32],
    values: npt.NDArray[np.float32] | None,
    scale: Normalize,
) -> None:
    axis.imshow(cell.mean(axis=2), cmap="gray", vmin=0, vmax=1)
    if values is None:
        axis.text(0.5, 0.5, "degenerate", color="white", ha="center", transform=axis.transAxes)
    else:
        axis.imshow(values, cmap=COLOURS, norm=scale, alpha=0.6)
