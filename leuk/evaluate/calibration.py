"""Making a score of 0.8 mean that eight of ten such cells are leukemic.

The temperature is fitted on validation cells and applied to test cells.
"""

import numpy as np
from scipy.special import expit, logit

from leuk.evaluate.vectors import Floats, Vector, as_scores_and_labels

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
    # Here: it takes as long to load as pandas, and who only applies a temperature needs it not.
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


def _log_odds(scores: Floats) -> Floats:
    return np.asarray(logit(scores.clip(_SUREST, 1 - _SUREST)))
