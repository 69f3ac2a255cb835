"""Effective number of patients."""

from collections.abc import Hashable, Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

FEWEST = 3.0
"""Effective patients below which nothing is concluded about others: two patients give one
difference, from which no spread between patients can be estimated."""


def effective_patients(patients: Iterable[Hashable]) -> float:
    """Number of equally large patients that would weigh as unequally as these.

    A patient with 789 of 825 images decides any average over images; the count of patients hides
    that, Kish's effective sample size (Kish, *Survey Sampling*, 1965, section 8.2) shows it.

    Args:
        patients: the patient of each image, ``(N,)``.

    Returns:
        ``(sum n)^2 / sum n^2`` over the images ``n`` per patient; 0 without images.
    """
    return effective_number(pd.Series(list(patients)).value_counts().to_numpy())


def patient_quantile(
    values: npt.NDArray[np.floating], patients: npt.NDArray[np.generic], share: float
) -> float:
    """Quantile of a distribution in which every patient weighs the same.

    A limit from images alone is that of the patient with the most of them.

    Args:
        values: ``(N,)`` of the images; at least one.
        patients: ``(N,)`` the patient of each.
        share: of the distribution at or below the quantile, in [0, 1].

    Returns:
        The quantile, if each image weighs 1 / (the patient's images): a value has below it the
        weight of the smaller ones and half its own, and values between are interpolated (Hazen's
        rule; definition 5 of Hyndman & Fan 1996).
    """
    _, codes = np.unique(patients, return_inverse=True)
    order = np.argsort(values, kind="stable")
    weights = (1 / np.bincount(codes)[codes])[order]
    below = (np.cumsum(weights) - weights / 2) / weights.sum()
    return float(np.interp(share, below, values[order]))


def effective_number(images: npt.NDArray[np.integer]) -> float:
    """:func:`effective_patients` from the images per patient ``(P,)``."""
    counts = images.astype(np.float64)
    return float(counts.sum() ** 2 / (counts**2).sum()) if len(counts) else 0.0
