"""Whether a score of 0.8 means that eight of ten such cells are leukemic, and making it so.

The temperature is fitted on validation cells and applied to test cells.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

from leuk.evaluate.vectors import Floats, Vector, as_scores_and_labels

ECE_BINS = 15

COOLEST, HOTTEST = 0.05, 20.0
"""Bounds of the temperature; one of them is the answer where the classes do not overlap."""

_SUREST = 1e-12
"""Scores nearer to 0 or 1 count as this near, so that their log-odds are finite."""


def fit_temperature(scores: Vector, labels: Vector) -> float:
    """The temperature that makes the scores fit the labels best (Guo et al. 2017, section 4.2).

    It is the T with the smallest cross-entropy of ``sigmoid(log-odds / T)``, which is convex in
    1 / T. Above 1 the model was too sure of itself, below 1 not sure enough.

    Args:
        scores: ``(N,)`` probability of leukemia of validation cells; exact 0 and 1 are allowed.
        labels: ``(N,)``, 1 = leukemic; both classes present.

    Returns:
        T, in [0.05, 20].

    Raises:
        ValueError: only one class, or scores outside [0, 1].
    """
    # Here: it loads a fifth of what a report loads, which fits nothing.
    from scipy.optimize import minimize_scalar

    checked, truth = as_scores_and_labels(scores, labels)
    margins = _log_odds(checked) * (2 * truth - 1)

    def cross_entropy(log_temperature: float) -> float:
        return float(np.logaddexp(0, -margins * np.exp(-log_temperature)).mean())

    found = minimize_scalar(
        cross_entropy, bounds=(np.log(COOLEST), np.log(HOTTEST)), options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


def apply_temperature(scores: Vector, temperature: float) -> Floats:
    """Scores ``(N,)`` at a temperature; their order, and so every ranking figure, stays.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"a temperature is above 0, found {temperature}")
    return np.asarray(expit(_log_odds(np.asarray(scores, np.float64)) / temperature))


def reliability(scores: Vector, labels: Vector, bins: int = ECE_BINS) -> pd.DataFrame:
    """The calibration curve, in bins of equal width.

    Returns:
        One row for each bin that holds cells: its edges ``low`` and ``high``, ``score`` (mean),
        ``observed`` (share of leukemic cells) and ``count``. The expected calibration error is the
        mean of ``|score - observed|`` weighted by ``count``.

    Raises:
        ValueError: as :func:`fit_temperature`.
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


def _log_odds(scores: Floats) -> Floats:
    return np.asarray(logit(scores.clip(_SUREST, 1 - _SUREST)))
