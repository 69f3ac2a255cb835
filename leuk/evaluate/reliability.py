"""Calibration curve: share of leukemic images by score."""

from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from leuk.evaluate.vectors import Floats, Vector, as_scores_and_labels

ECE_BINS = 15


def reliability(scores: Vector, labels: Vector, bins: int = ECE_BINS) -> pd.DataFrame:
    """Compute the calibration curve in bins of equal width.

    Args:
        scores: ``(N,)`` probability of leukemia, in [0, 1].
        labels: ``(N,)``, 1 = leukemic; both classes present.
        bins: number of bins.

    Returns:
        A row per occupied bin: its edges ``low`` and ``high``, ``score`` (mean), ``observed``
        (share of leukemic images) and ``count``. The expected calibration error is the
        mean of ``|score - observed|`` weighted by ``count``.

    Raises:
        ValueError: a single class, or scores outside [0, 1].
    """
    checked, truth = as_scores_and_labels(scores, labels)
    index = bin_index(checked, bins)
    counts = np.bincount(index, minlength=bins)
    occupied = np.flatnonzero(counts)
    means = {
        name: np.bincount(index, values, bins)[occupied] / counts[occupied]
        for name, values in (("score", checked), ("observed", truth))
    }
    low = occupied / bins
    return pd.DataFrame({"low": low, "high": low + 1 / bins, **means, "count": counts[occupied]})


def bin_index(scores: Floats, bins: int) -> npt.NDArray[np.int64]:
    """Index of each score's bin among bins of equal width in [0, 1]; 1 is in the last."""
    return np.searchsorted(_edges(bins), scores, side="right")


@cache
def _edges(bins: int) -> Floats:
    """Inner edges of the bins, cached as every model of a sweep uses them."""
    edges: Floats = np.linspace(0, 1, bins + 1)[1:-1]
    edges.setflags(write=False)
    return edges
