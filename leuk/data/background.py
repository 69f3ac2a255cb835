"""Images whose background is not black, which everything that looks for the cell relies on."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from leuk.data.decode import LIT
from leuk.data.labels import Label
from leuk.errors import DataError

OUTLINE = 0.6
"""Lit share of the border of the box around what is lit, from which the background is not black:
a round cell touches that box in few places. Measured on folds 0 and 1 of C-NMC: 0.47 at most."""

REMEDY = "set everything but the cell to black (0, 0, 0), as C-NMC does"

_NAMED = 10

Flags = npt.NDArray[np.bool_]


def has_background(thumbs: npt.NDArray[np.uint8]) -> Flags:
    """Find images with a background that is not black, or without any background.

    Args:
        thumbs: ``uint8 (N, 64, 64)``, the square around what is lit in each image.

    Returns:
        ``bool (N,)``.
    """
    return np.array([_lit_outline(thumb > LIT) >= OUTLINE for thumb in thumbs], np.bool_)


def _lit_outline(lit: Flags) -> float:
    """Lit share of the border of the smallest box ``(h, w)`` around the lit pixels of a mask."""
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if not len(rows):
        return 0.0
    box = lit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return float(np.concatenate([box[0], box[-1], box[1:-1, 0], box[1:-1, -1]]).mean())


def background_warning(names: Sequence[str], count: int) -> str:
    """One sentence that names up to ten images whose background is not black; empty without any.

    Args:
        names: of these images.
        count: of all images.
    """
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"background: {len(names)} of {count} images have a background that is not black, so that "
        f"all of it counts as the cell: {', '.join(names[:_NAMED])}{more}; {REMEDY}"
    )


def check_background(stages: dict[str, pd.DataFrame], thumbs: npt.NDArray[np.uint8]) -> str:
    """Refuse data without black backgrounds before it is fitted on.

    Args:
        stages: stage to the table of its images, with ``path`` and ``label``; the index is the row
            of ``thumbs``.
        thumbs: ``uint8 (N, 64, 64)`` of the data set.

    Returns:
        A warning about single images; empty where every background is black.

    Raises:
        DataError: it is not black in more than half of the images of a class of a stage.
    """
    cells = pd.concat([cells.assign(stage=stage) for stage, cells in stages.items()])
    cells["found"] = has_background(thumbs[cells.index.to_numpy()])
    shares = cells.groupby(["stage", "label"], sort=False)["found"].agg(["mean", "sum", "size"])
    # A stage of the thesis's split is another's, too.
    single = cells[~cells.index.duplicated()]
    warning = background_warning(single.loc[single["found"], "path"].tolist(), len(single))
    most = shares[shares["mean"] > 0.5]
    if most.empty:
        return warning
    counted = ", ".join(
        f"{found} of {size} {Label(label).folder} images of {stage}"
        for (stage, label), found, size in zip(
            most.index.tolist(), most["sum"].tolist(), most["size"].tolist(), strict=True
        )
    )
    raise DataError(
        f"{warning} ({counted}); the area of the cell, the baselines, links between subjects and "
        "explanations would be of the whole image"
    )
