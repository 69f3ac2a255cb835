"""Whether a score of 0.8 means that eight of ten such cells are leukemic."""

from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from leuk.evaluate.vectors import Floats, Vector, as_scores_and_labels

ECE_BINS = 15


def reliability(scores: Vector, labels: Vector, bins: int = ECE_BINS) -> pd.DataFrame:
    """The calibration curve, in bins of equal width.

    Returns:
        One row for each bin that holds cells: its edges ``low`` and ``high``, ``score`` (mean),
        ``observed`` (share of leukemic cells) and ``count``. The expected calibration error is the
        mean of ``|score - observed|`` weighted by ``count``.

    Raises:
        ValueError: only one class, or scores outside [0, 1].
    """
    checked, truth = as_scores_and_labels(scores, labels)
    place = bin_of(checked, bins)
    counts = np.bincount(place, minlength=bins)
    there = np.flatnonzero(counts)
    means = {
        name: np.bincount(place, values, bins)[there] / counts[there]
        for name, values in (("score", checked), ("observed", truth))
    }
    low = there / bins
    return pd.DataFrame({"low": low, "high": low + 1 / bins, **means, "count": counts[there]})


def bin_of(scores: Floats, bins: int) -> npt.NDArray[np.int64]:
    """Number of the bin of equal width in [0, 1] that each score lies in; 1 is in the last."""
    return np.searchsorted(_edges(bins), scores, side="right")


@cache
def _edges(bins: int) -> Floats:
    """Between two bins each; made once, as every model of a sweep is binned."""
    edges: Floats = np.linspace(0, 1, bins + 1)[1:-1]
    edges.setflags(write=False)
    return edges
