"""Decision thresholds, chosen on validation images and applied unchanged to test images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from leuk.data.labels import Label
from leuk.data.splits import FEWEST, effective_patients
from leuk.metrics.arrays import Floats, Integers, Vector, as_scores_and_labels
from leuk.metrics.bootstrap import resamples
from leuk.metrics.classification import DEFAULT, Sample

Patients = npt.NDArray[Any] | Sequence[str]
"""The patient of each image, ``(N,)``."""

_DRAWS = 200
_WANTED = 0.95
"""Sensitivity of the threshold ``sensitivity95``."""


def choose_thresholds(scores: Vector, labels: Vector, patients: Patients) -> dict[str, float]:
    """Choose thresholds on validation images, each the median over resampled patients.

    With few patients the best threshold depends strongly on which are included. The median over
    bootstrap samples is more stable (Thiele & Hirschfeld, *Journal of Statistical Software* 98(11),
    2021, ``maximize_boot_metric``); whole patients are drawn.

    Returns:
        ``default`` (0.5), ``youden`` (maximizes sensitivity + specificity - 1) and
        ``sensitivity95`` (the largest threshold with a sensitivity of at least 0.95).

    Raises:
        ValueError: a single class, scores outside [0, 1], or different numbers of scores and
            patients.
    """
    drawn = resampled_thresholds(scores, labels, patients)
    return {DEFAULT: 0.5, **{name: float(np.median(values)) for name, values in drawn.items()}}


def threshold_intervals(
    scores: Vector, labels: Vector, patients: Patients
) -> dict[str, tuple[float, float]]:
    """Range of the central 95 % of the resampled values of each threshold."""
    drawn = resampled_thresholds(scores, labels, patients)
    low, high = (1 - 0.95) / 2, (1 + 0.95) / 2
    return {
        name: (float(np.quantile(values, low)), float(np.quantile(values, high)))
        for name, values in drawn.items()
    }


def resampled_thresholds(scores: Vector, labels: Vector, patients: Patients) -> dict[str, Floats]:
    """Choose thresholds ``(200,)`` on resampled validation sets, in which patients are drawn."""
    sample = Sample(*as_scores_and_labels(scores, labels), np.asarray(patients))
    drawn = resamples(sample.strata, len(sample.images), _DRAWS, np.random.default_rng(0))
    weights = drawn[:, sample.codes]
    return {
        "youden": youden_threshold(sample.scores, sample.labels, weights),
        "sensitivity95": sensitivity_threshold(sample.scores, sample.labels, weights),
    }


def few_patients(labels: Vector, patients: Patients) -> str | None:
    """Return a warning if a class has too few validation patients for stable thresholds."""
    truth, names = np.asarray(labels), np.asarray(patients)
    few = [
        f"{effective:.1f} effective {name}"
        for label, name in ((Label.HEM, "healthy"), (Label.ALL, "leukemic"))
        if (effective := effective_patients(names[truth == label].tolist())) < FEWEST
    ]
    if not few:
        return None
    return (
        f"only {' and '.join(few)} subjects: the chosen thresholds depend on the choice of "
        "patients; see their intervals"
    )


def youden_threshold(scores: Floats, labels: Integers, weights: Floats) -> Floats:
    """Choose thresholds ``(D,)`` that maximize sensitivity + specificity - 1 (Youden 1950).

    Each row of the weights of the images ``(D, N)`` has a positive weight in both classes.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=np.inf))
    leukemic, healthy = (
        np.cumsum(weights[:, order] * (labels[order] == label), axis=1)[:, last]
        for label in (Label.ALL, Label.HEM)
    )
    gained = leukemic / leukemic[:, -1:] - healthy / healthy[:, -1:]
    # Rounded, so that equal sums compare equal; ties go to calling no image leukemic.
    gained = np.pad(gained, ((0, 0), (1, 0))).round(12)
    return np.asarray(np.append(1.0, scores[order][last])[np.argmax(gained, axis=1)])


def sensitivity_threshold(
    scores: Floats, labels: Integers, weights: Floats, wanted: float = _WANTED
) -> Floats:
    """Choose the largest thresholds ``(D,)`` with a sensitivity of at least ``wanted``.

    Each row of the weights of the images ``(D, N)`` has a positive weight of a leukemic image.
    """
    positive = labels == Label.ALL
    order = np.argsort(-scores[positive], kind="stable")
    found = np.cumsum(weights[:, positive][:, order], axis=1)
    reached = (found / found[:, -1:]).round(12) >= wanted
    return np.asarray(scores[positive][order][np.argmax(reached, axis=1)])
