"""Temperature scaling: after it, of ten images with a score of 0.8 about eight are leukemic.

The temperature is fitted on validation images and applied to test images.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

from leuk.metrics.arrays import Floats, Integers, Vector, as_scores_and_labels

COOLEST, HOTTEST = 0.05, 20.0
"""Bounds of the temperature, reached when the scores separate the classes perfectly."""

_SUREST = 1e-12
"""Smallest distance of a score from 0 and 1, so that log-odds are finite."""


def fit_temperature(scores: Vector, labels: Vector) -> float:
    """Fit the temperature with the best match of scores and labels (Guo et al. 2017, section 4.2).

    The result is the T in [0.05, 20] with the smallest cross-entropy of ``sigmoid(log-odds / T)``,
    which is convex in 1 / T. Above 1 the model was overconfident, below 1 underconfident. Scores of
    exactly 0 and 1 are allowed.

    Raises:
        ValueError: a single class, or scores outside [0, 1].
    """
    # Imported here: it loads as slowly as pandas, and applying a temperature does not need it.
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
    """Rescale scores ``(N,)``; their order, and with it every ranking metric, stays the same.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: must be above 0")
    return np.asarray(expit(_log_odds(np.asarray(scores, np.float64)) / temperature))


def _log_odds(scores: Floats) -> Floats:
    return np.asarray(logit(scores.clip(_SUREST, 1 - _SUREST)))


# --- Calibration curve: share of leukemic images by score

ECE_BINS = 15


def reliability(scores: Vector, labels: Vector, bins: int = ECE_BINS) -> pd.DataFrame:
    """Compute the calibration curve in bins of equal width.

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
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], scores, side="right")


# --- Validation loss that is invariant to the class prior


def prior_free_loss(log_odds: Floats, labels: Integers) -> float:
    """Compute the class-balanced log loss after the best constant shift of the log odds.

    Training on other class proportions (oversampling, class weights, synthetic images) adds a
    constant to the log odds of an ideal classifier (Saerens et al. 2002, section 2), which a plain
    log loss counts as an error. Here each class weighs half, and the constant minimizes the loss,
    so adding any constant to all log odds changes nothing.

    Returns:
        Loss in nats: log 2 for equal log odds, near 0 for well separated classes, NaN if a class is
        missing or a value is not finite.
    """
    from scipy.optimize import brentq

    if not np.isfinite(log_odds).all() or len(np.unique(labels)) < 2:
        return float("nan")
    # Relative to the smallest, so that a constant cancels before any rounding.
    relative = log_odds - log_odds.min()
    positive = labels == 1

    def slope(shift: float) -> float:
        # Twice the derivative of the loss, which rises from at most 0 to at least 0.
        probability = expit(relative + shift)
        return float(probability[~positive].mean() + probability[positive].mean() - 1)

    shifted = relative + brentq(slope, -relative.max(), 0.0, xtol=1e-10)
    losses = np.logaddexp(0, np.where(positive, -shifted, shifted))
    return float(losses[~positive].mean() + losses[positive].mean()) / 2
