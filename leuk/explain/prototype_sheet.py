"""Figure of a classifier's prototypes: the training patches they were projected to."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from leuk.classifiers.prototypes import Prototype
from leuk.data.labels import Label

_INCH = 1.7
"""Side of an image."""

_BOX = "#ffb000"
"""Color visible on stained cells and on black, for color-blind readers too."""


def save_prototypes(
    path: Path, images: Tensor, prototypes: Sequence[Prototype], title: str
) -> None:
    """Draw each prototype's training image with a box around its patch, a row per class.

    The box is the grid position of the prototype; its receptive field is larger. The number over
    each image is the similarity of the learned prototype to the patch that replaced it.

    Args:
        path: output file.
        images: ``(P, 3, R, R)`` in [0, 1], the image of each prototype.
        prototypes: prototypes from :meth:`leuk.classifiers.prototyped.Prototyped.project`.
        title: title of the whole figure.

    Raises:
        ValueError: no prototypes, or another number of images.
    """
    if not prototypes or len(images) != len(prototypes):
        raise ValueError(f"{len(images)} images for {len(prototypes)} prototypes")
    pixels = images.permute(0, 2, 3, 1).float().cpu().numpy()
    rows = [[n for n, p in enumerate(prototypes) if p.label == label] for label in Label]
    most = max(map(len, rows))
    size = (max(4.0, _INCH * most), _INCH * 1.15 * len(rows) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=9, parse_math=False)
    axes = figure.subplots(len(rows), most, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for label, own, row in zip(Label, rows, axes, strict=True):
        for axis, number in zip(row, own, strict=False):
            prototype = prototypes[number]
            axis.imshow(pixels[number])
            # Matplotlib draws pixels around their centers.
            corner = (prototype.left - 0.5, prototype.top - 0.5)
            side = prototype.side
            axis.add_patch(Rectangle(corner, side, side, fill=False, ec=_BOX, lw=1.5))
            axis.set_title(f"{label.folder}  {prototype.similarity:.1f}", fontsize=7, loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
