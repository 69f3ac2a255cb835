"""Detection of images with a background that is not black, which breaks the mask of the cell."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from leuk.data.decode import LIT
from leuk.data.labels import Label
from leuk.errors import DataError

OUTLINE = 0.6
"""Lit share of the border of the box around all lit pixels, from which the background counts as not
black: a round cell touches that box in few places. Maximum on folds 0 and 1 of C-NMC: 0.47."""

REMEDY = "set everything but the cell to black (0, 0, 0), as C-NMC does"

_NAMED = 10

Flags = npt.NDArray[np.bool_]


def has_background(thumbs: npt.NDArray[np.uint8]) -> Flags:
    """Find images with a background that is not black, or without any background.

    Args:
        thumbs: ``uint8 (N, 64, 64)``, the square around the lit pixels of each image.

    Returns:
        ``bool (N,)``.
    """
    return np.array([_lit_outline(thumb > LIT) >= OUTLINE for thumb in thumbs], np.bool_)


def _lit_outline(lit: Flags) -> float:
    """Return the lit share of the border of the smallest box around the lit pixels of a mask."""
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if not len(rows):
        return 0.0
    box = lit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return float(np.concatenate([box[0], box[-1], box[1:-1, 0], box[1:-1, -1]]).mean())


def background_warning(names: Sequence[str], count: int) -> str:
    """Warn of images with a background that is not black; empty without such images.

    Args:
        names: names of these images; up to ten are listed.
        count: number of all images.
    """
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"background: {len(names)} of {count} images have a background that is not black, so that "
        f"all of it counts as the cell: {', '.join(names[:_NAMED])}{more}; {REMEDY}"
    )


def check_background(stages: dict[str, pd.DataFrame], thumbs: npt.NDArray[np.uint8]) -> str:
    """Refuse to train on data without black backgrounds.

    Args:
        stages: table of images by stage, with ``path`` and ``label``; its index holds the rows of
            ``thumbs``.
        thumbs: ``uint8 (N, 64, 64)``, thumbnails of the data set.

    Returns:
        A warning about single images; empty if all backgrounds are black.

    Raises:
        DataError: in a stage, more than half of the images of a class have another background.
    """
    images = pd.concat([table.assign(stage=stage) for stage, table in stages.items()])
    images["found"] = has_background(thumbs[images.index.to_numpy()])
    shares = images.groupby(["stage", "label"], sort=False)["found"].agg(["mean", "sum", "size"])
    # In the thesis split, the same images form the validation and the test stage.
    single = images[~images.index.duplicated()]
    warning = background_warning(single.loc[single["found"], "path"].tolist(), len(single))
    most = shares[shares["mean"] > 0.5]
    if most.empty:
        return warning
    counts = ", ".join(
        f"{row['sum']} of {row['size']} {Label(row['label']).folder} images of {row['stage']}"
        for row in most.reset_index().to_dict("records")
    )
    raise DataError(
        f"{warning} ({counts}); cell areas, baselines, links between subjects and explanations "
        "would refer to the whole image"
    )
