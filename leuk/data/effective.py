"""Effective number of patients."""

from collections.abc import Hashable, Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

FEWEST = 3.0
"""Minimum effective patients for conclusions about other patients: two patients give a single
difference, from which the variance between patients cannot be estimated."""


def effective_patients(patients: Iterable[Hashable]) -> float:
    """Effective number of patients, with the images per patient as weights.

    A patient with 789 of 825 images dominates any average over images, which the number of patients
    hides (effective sample size: Kish, *Survey Sampling*, 1965, section 8.2).

    Args:
        patients: patient of each image, ``(N,)``.

    Returns:
        ``(sum n)^2 / sum n^2`` with ``n`` images per patient; 0 without images.
    """
    return effective_number(pd.Series(list(patients)).value_counts().to_numpy())


def patient_quantile(
    values: npt.NDArray[np.floating], patients: npt.NDArray[np.generic], share: float
) -> float:
    """Quantile of image values with equal total weight per patient.

    With equal weights per image, the patient with the most images would determine it.

    Args:
        values: ``(N,)``, value of each image; at least one.
        patients: ``(N,)``, patient of each image.
        share: share of the distribution below the quantile, in [0, 1].

    Returns:
        The quantile with weight 1 / (images of the patient) per image. The position of a value is
        the weight of smaller values plus half its own; positions between are interpolated (Hazen's
        rule; definition 5 of Hyndman & Fan 1996).
    """
    _, codes = np.unique(patients, return_inverse=True)
    order = np.argsort(values, kind="stable")
    weights = (1 / np.bincount(codes)[codes])[order]
    below = (np.cumsum(weights) - weights / 2) / weights.sum()
    return float(np.interp(share, below, values[order]))


def effective_number(images: npt.NDArray[np.integer]) -> float:
    """Return :func:`effective_patients` for images per patient ``(P,)``."""
    counts = images.astype(np.float64)
    return float(counts.sum() ** 2 / (counts**2).sum()) if len(counts) else 0.0
