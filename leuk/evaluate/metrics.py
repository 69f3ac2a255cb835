"""Metrics of merit from scores and labels; 1 = leukemic = positive.

The figures of a table are made here and nowhere else.
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

from leuk.evaluate.reliability import ECE_BINS
from leuk.evaluate.resampling import Reweighted
from leuk.evaluate.thresholds import Thresholds, suffixed
from leuk.evaluate.vectors import Vector, as_scores_and_labels

CLASSES = ("hem", "all")
"""Names of the classes in the order of their labels."""


def ranking_metrics(scores: Vector, labels: Vector) -> dict[str, float]:
    """Metrics that need no threshold.

    Args:
        scores: ``(N,)`` probability of leukemia, in [0, 1].
        labels: ``(N,)``, 1 = leukemic; both classes present.

    Returns:
        ``auroc`` (area under the ROC curve), ``auprc`` (average precision), and those of
        :func:`probability_metrics`.

    Raises:
        ValueError: only one class, or scores outside [0, 1].
    """
    checked, truth = map(torch.from_numpy, as_scores_and_labels(scores, labels))
    return {
        "auroc": float(binary_auroc(checked, truth)),
        "auprc": float(binary_average_precision(checked, truth)),
        **probability_metrics(scores, labels),
    }


def probability_metrics(scores: Vector, labels: Vector) -> dict[str, float]:
    """How far the scores are from probabilities.

    Returns:
        ``brier`` (mean squared error of the probability) and ``ece`` (expected calibration error
        over 15 bins of equal width, Guo et al. 2017).

    Raises:
        ValueError: as :func:`ranking_metrics`.
    """
    checked, truth = map(torch.from_numpy, as_scores_and_labels(scores, labels))
    return {
        "brier": float(torch.mean((checked - truth) ** 2)),
        "ece": float(binary_calibration_error(checked, truth, n_bins=ECE_BINS, norm="l1")),
    }


def decision_metrics(scores: Vector, labels: Vector, threshold: float) -> dict[str, float]:
    """Metrics of the decision "leukemic where the score is at least ``threshold``".

    Sensitivity is the recall of leukemic cells, specificity that of healthy ones. Precision of a
    class nobody was assigned to counts as 0.

    Returns:
        ``accuracy``, ``balanced_accuracy``, ``sensitivity``, ``specificity``, ``mcc`` (Matthews),
        and ``precision``, ``recall`` and ``f1`` each with ``_hem``, ``_all``, ``_macro`` and
        ``_weighted`` (weighted by class size).

    Raises:
        ValueError: as :func:`ranking_metrics`.
    """
    checked, truth = map(torch.from_numpy, as_scores_and_labels(scores, labels))
    decided = (checked >= threshold).long()
    figures: dict[str, float] = {"accuracy": float((decided == truth).double().mean())}
    averaged: dict[str, float] = {}
    for name, function in _AVERAGED.items():
        for label, value in zip(CLASSES, function(decided, truth, 2, average="none"), strict=True):
            averaged[f"{name}_{label}"] = float(value)
        for average in ("macro", "weighted"):
            averaged[f"{name}_{average}"] = float(function(decided, truth, 2, average=average))
    figures["balanced_accuracy"] = averaged["recall_macro"]
    figures["sensitivity"] = averaged["recall_all"]
    figures["specificity"] = averaged["recall_hem"]
    figures["mcc"] = float(matthews_corrcoef(truth.numpy(), decided.numpy()))
    return figures | averaged


_AVERAGED = {
    "precision": multiclass_precision,
    "recall": multiclass_recall,
    "f1": multiclass_f1_score,
}


def patient_metrics(
    scores: Vector, labels: Vector, patients: npt.NDArray[np.generic], thresholds: Thresholds
) -> dict[str, float]:
    """Metrics in which every patient of a class weighs the same.

    Where one healthy patient has 789 of 825 images, an average over images is that patient's; these
    weigh each image by 1 / (the patient's images of its class).

    Args:
        scores: ``(N,)`` probability of leukemia, in [0, 1].
        labels: ``(N,)``, 1 = leukemic; both classes present.
        patients: ``(N,)`` the patient of each image.
        thresholds: see :func:`leuk.evaluate.thresholds.choose_thresholds`.

    Returns:
        ``auroc_patients``, and ``balanced_accuracy_patients``, ``sensitivity_patients`` and
        ``specificity_patients`` at each threshold, named as in :func:`all_metrics`.

    Raises:
        ValueError: as :func:`ranking_metrics`.
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
    """Every figure there is.

    Args:
        scores: ``(N,)`` probability of leukemia, in [0, 1].
        labels: ``(N,)``, 1 = leukemic; both classes present.
        thresholds: see :func:`leuk.evaluate.thresholds.choose_thresholds`.
        calibrated: ``(N,)`` scores after temperature scaling.
        patients: ``(N,)`` the patient of each image.

    Returns:
        Ranking figures; ``brier_calibrated`` and ``ece_calibrated`` where there are calibrated
        scores; decisions at each threshold, named without a suffix at ``default`` and with
        ``@youden`` or the like at the others; and :func:`patient_metrics` where there are patients.

    Raises:
        ValueError: as :func:`ranking_metrics`.
    """
    figures = ranking_metrics(scores, labels)
    if calibrated is not None:
        after = probability_metrics(calibrated, labels)
        figures |= {f"{name}_calibrated": value for name, value in after.items()}
    for cut, threshold in thresholds.items():
        for name, value in decision_metrics(scores, labels, threshold).items():
            figures[suffixed(name, cut)] = value
    if patients is not None:
        figures |= patient_metrics(scores, labels, patients, thresholds)
    return figures
