"""A picture of what each class is recognised by: the training patches that became prototypes."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from leuk.classifiers.prototypes import Prototype
from leuk.data.labels import Label

_INCH = 1.7
"""A cell."""

_BOX = "#ffb000"
"""Seen on stained cells and on black, by colour-blind readers too."""


def save_prototypes(
    path: Path, images: Tensor, prototypes: Sequence[Prototype], title: str
) -> None:
    """Draw each prototype's training cell with a box around its patch, one row a class.

    The box is the place of the grid that the prototype was taken from; its features have seen what
    surrounds it too. Over each cell stands how similar the learned prototype was to the patch that
    took its place.

    Args:
        path: the PNG.
        images: ``(P, 3, R, R)`` in [0, 1], the cell of each prototype.
        prototypes: from :meth:`leuk.classifiers.prototyped.Prototyped.project`.
        title: over the whole picture.

    Raises:
        ValueError: not one image a prototype, or none at all.
    """
    if not prototypes or len(images) != len(prototypes):
        raise ValueError(f"{len(images)} images of {len(prototypes)} prototypes")
    cells = images.permute(0, 2, 3, 1).float().cpu().numpy()
    rows = [[n for n, p in enumerate(prototypes) if p.label == label] for label in Label]
    most = max(map(len, rows))
    size = (max(4.0, _INCH * most), _INCH * 1.15 * len(rows) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=9, parse_math=False)
    axes = figure.subplots(len(rows), most, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for label, own, line in zip(Label, rows, axes, strict=True):
        for axis, number in zip(line, own, strict=False):
            one = prototypes[number]
            axis.imshow(cells[number])
            # Pixels are drawn about their centres.
            corner = (one.left - 0.5, one.top - 0.5)
            axis.add_patch(Rectangle(corner, one.side, one.side, fill=False, ec=_BOX, lw=1.5))
            axis.set_title(f"{label.folder}  {one.similarity:.1f}", fontsize=7, loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
