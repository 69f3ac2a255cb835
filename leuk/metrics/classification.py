"""Classification metrics from scores and labels; 1 = leukemic = positive.

All metrics in tables are computed here, except on resamples: see
:mod:`leuk.metrics.bootstrap`.
"""

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import matthews_corrcoef
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from leuk.metrics.arrays import Vector, as_scores_and_labels
from leuk.metrics.bootstrap import Reweighted
from leuk.metrics.calibration import ECE_BINS
from leuk.metrics.thresholds import Thresholds, suffixed

CLASSES = ("hem", "all")
"""Names of the classes in the order of their labels."""


def ranking_metrics(scores: Vector, labels: Vector) -> dict[str, float]:
    """Compute metrics that need no threshold.

    Args:
        scores: ``(N,)`` probability of leukemia, in [0, 1].
        labels: ``(N,)``, 1 = leukemic; both classes present.

    Returns:
        ``auroc`` (area under the ROC curve), ``auprc`` (average precision), and the metrics
        of :func:`probability_metrics`.

    Raises:
        ValueError: a single class, or scores outside [0, 1].
    """
    checked, truth = map(torch.from_numpy, as_scores_and_labels(scores, labels))
    return {
        "auroc": float(binary_auroc(checked, truth)),
        "auprc": float(binary_average_precision(checked, truth)),
        **probability_metrics(scores, labels),
    }


def probability_metrics(scores: Vector, labels: Vector) -> dict[str, float]:
    """Compute calibration errors of scores.

    Args:
        scores: ``(N,)`` probability of leukemia, in [0, 1].
        labels: ``(N,)``, 1 = leukemic; both classes present.

    Returns:
        ``brier`` (mean squared error of the probability) and ``ece`` (expected calibration error
        over 15 bins of equal width, Guo et al. 2017).

    Raises:
        ValueError: see :func:`ranking_metrics`.
    """
    checked, truth = map(torch.from_numpy, as_scores_and_labels(scores, labels))
    return {
        "brier": float(torch.mean((checked - truth) ** 2)),
        "ece": float(binary_calibration_error(checked, truth, n_bins=ECE_BINS, norm="l1")),
    }


def decision_metrics(scores: Vector, labels: Vector, threshold: float) -> dict[str, float]:
    """Metrics of the decision "leukemic where the score is at least ``threshold``".

    Sensitivity is the recall of leukemic images, specificity that of healthy images. Precision of a
    class that is never predicted counts as 0.

    Args:
        scores: ``(N,)`` probability of leukemia, in [0, 1].
        labels: ``(N,)``, 1 = leukemic; both classes present.
        threshold: smallest score that is called leukemic.

    Returns:
        ``accuracy``, ``balanced_accuracy``, ``sensitivity``, ``specificity``, ``mcc`` (Matthews),
        and ``precision``, ``recall`` and ``f1`` each with ``_hem``, ``_all``, ``_macro`` and
        ``_weighted`` (weighted by class size).

    Raises:
        ValueError: see :func:`ranking_metrics`.
    """
    checked, truth = map(torch.from_numpy, as_scores_and_labels(scores, labels))
    decided = (checked >= threshold).long()
    metrics: dict[str, float] = {"accuracy": float((decided == truth).double().mean())}
    averaged: dict[str, float] = {}
    for name, function in _AVERAGED.items():
        for label, value in zip(CLASSES, function(decided, truth, 2, average="none"), strict=True):
            averaged[f"{name}_{label}"] = float(value)
        for average in ("macro", "weighted"):
            averaged[f"{name}_{average}"] = float(function(decided, truth, 2, average=average))
    metrics["balanced_accuracy"] = averaged["recall_macro"]
    metrics["sensitivity"] = averaged["recall_all"]
    metrics["specificity"] = averaged["recall_hem"]
    metrics["mcc"] = float(matthews_corrcoef(truth.numpy(), decided.numpy()))
    return metrics | averaged


_AVERAGED = {
    "precision": multiclass_precision,
    "recall": multiclass_recall,
    "f1": multiclass_f1_score,
}


def patient_metrics(
    scores: Vector, labels: Vector, patients: npt.NDArray[np.generic], thresholds: Thresholds
) -> dict[str, float]:
    """Compute metrics in which every patient of a class weighs the same.

    If one healthy patient has 789 of 825 images, an average over images is that patient's; these
    metrics weigh each image by 1 / (the patient's images of its class).

    Args:
        scores: ``(N,)`` probability of leukemia, in [0, 1].
        labels: ``(N,)``, 1 = leukemic; both classes present.
        patients: ``(N,)`` the patient of each image.
        thresholds: see :func:`leuk.metrics.thresholds.choose_thresholds`.

    Returns:
        ``auroc_patients``, and ``balanced_accuracy_patients``, ``sensitivity_patients`` and
        ``specificity_patients`` at each threshold, named as in :func:`all_metrics`.

    Raises:
        ValueError: see :func:`ranking_metrics`.
    """
    checked, truth = as_scores_and_labels(scores, labels)
    codes = np.unique(patients.astype(str), return_inverse=True)[1]
    decided = {name: checked >= threshold for name, threshold in thresholds.items()}
    images = Reweighted(checked, truth, codes, decided)
    once = np.ones((1, images.count))
    return {name: float(images.metric(name, once)[0]) for name in images.patient_names}


def all_metrics(
    scores: Vector,
    labels: Vector,
    thresholds: Thresholds,
    calibrated: Vector | None = None,
    patients: npt.NDArray[np.generic] | None = None,
) -> dict[str, float]:
    """Compute all metrics.

    Args:
        scores: ``(N,)`` probability of leukemia, in [0, 1].
        labels: ``(N,)``, 1 = leukemic; both classes present.
        thresholds: see :func:`leuk.metrics.thresholds.choose_thresholds`.
        calibrated: ``(N,)`` scores after temperature scaling.
        patients: ``(N,)`` the patient of each image.

    Returns:
        Ranking metrics; ``brier_calibrated`` and ``ece_calibrated`` if calibrated scores are given;
        decision metrics at each threshold, named without a suffix at ``default`` and with a suffix
        such as ``@youden`` at the others; and :func:`patient_metrics` if patients are given.

    Raises:
        ValueError: see :func:`ranking_metrics`.
    """
    metrics = ranking_metrics(scores, labels)
    if calibrated is not None:
        after = probability_metrics(calibrated, labels)
        metrics |= {f"{name}_calibrated": value for name, value in after.items()}
    for cut, threshold in thresholds.items():
        for name, value in decision_metrics(scores, labels, threshold).items():
            metrics[suffixed(name, cut)] = value
    if patients is not None:
        metrics |= patient_metrics(scores, labels, patients, thresholds)
    return metrics
