"""Validation loss that is invariant to the class prior."""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from leuk.evaluate.vectors import Floats, Integers


def prior_free_loss(log_odds: Floats, labels: Integers) -> float:
    """Compute the class-balanced log loss after the best constant shift of the log odds.

    Training on other class proportions (oversampling, class weights, synthetic images) adds a
    constant to the log odds of an ideal classifier (Saerens et al. 2002, section 2), which a plain
    log loss counts as an error. Here each class weighs half, and the constant minimizes the loss,
    so adding any constant to all log odds changes nothing.

    Args:
        log_odds: ``(N,)`` log odds of the positive class, at any base rate.
        labels: ``(N,)`` in {0, 1}.

    Returns:
        Loss in nats: log 2 for equal log odds, near 0 for well separated classes, NaN if a class is
        missing or a value is not finite.
    """
    if not np.isfinite(log_odds).all() or len(np.unique(labels)) < 2:
        return math.nan
    # Relative to the smallest, so that a constant cancels before any rounding.
    relative = log_odds - log_odds.min()
    positive = labels == 1

    def slope(shift: float) -> float:
        """Twice the derivative of the loss, which rises from at most 0 to at least 0."""
        probability = expit(relative + shift)
        return float(probability[~positive].mean() + probability[positive].mean() - 1)

    shifted = relative + brentq(slope, -relative.max(), 0.0, xtol=1e-10)
    losses = np.logaddexp(0, np.where(positive, -shifted, shifted))
    return float(losses[~positive].mean() + losses[positive].mean()) / 2
