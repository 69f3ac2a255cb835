"""Figures of merit from scores and labels; 1 = leukemic = positive.

The figures of a table are made here and nowhere else.
"""

import torch
from sklearn.metrics import matthews_corrcoef
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    binary_roc,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

CLASSES = ("hem", "all")
"""Names of the classes in the order of their labels."""

ECE_BINS = 15


def ranking_metrics(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Figures that need no threshold.

    Args:
        scores: ``float (N,)`` probability of leukemia, in [0, 1].
        labels: ``int (N,)``, 1 = leukemic; both classes present.

    Returns:
        ``auroc`` (area under the ROC curve), ``auprc`` (average precision), ``brier`` (mean
        squared error of the probability) and ``ece`` (expected calibration error over 15 bins of
        equal width, Guo et al. 2017).

    Raises:
        ValueError: only one class, or scores outside [0, 1].
    """
    _check(scores, labels)
    return {
        "auroc": float(binary_auroc(scores, labels)),
        "auprc": float(binary_average_precision(scores, labels)),
        "brier": float(torch.mean((scores - labels) ** 2)),
        "ece": float(binary_calibration_error(scores, labels, n_bins=ECE_BINS, norm="l1")),
    }


def decision_metrics(scores: Tensor, labels: Tensor, threshold: float) -> dict[str, float]:
    """Figures of the decision "leukemic where the score is at least ``threshold``".

    Sensitivity is the recall of leukemic cells, specificity that of healthy ones. Precision of a
    class nobody was assigned to counts as 0.

    Returns:
        ``accuracy``, ``balanced_accuracy``, ``sensitivity``, ``specificity``, ``mcc`` (Matthews),
        and ``precision``, ``recall`` and ``f1`` each with ``_hem``, ``_all``, ``_macro`` and
        ``_weighted`` (weighted by class size).

    Raises:
        ValueError: as :func:`ranking_metrics`.
    """
    _check(scores, labels)
    decided = (scores >= threshold).long()
    figures: dict[str, float] = {"accuracy": float((decided == labels).float().mean())}
    averaged: dict[str, float] = {}
    for name, function in _AVERAGED.items():
        for label, value in zip(CLASSES, function(decided, labels, 2, average="none"), strict=True):
            averaged[f"{name}_{label}"] = float(value)
        for average in ("macro", "weighted"):
            averaged[f"{name}_{average}"] = float(function(decided, labels, 2, average=average))
    figures["balanced_accuracy"] = averaged["recall_macro"]
    figures["sensitivity"] = averaged["recall_all"]
    figures["specificity"] = averaged["recall_hem"]
    figures["mcc"] = float(matthews_corrcoef(labels.numpy(), decided.numpy()))
    return figures | averaged


_AVERAGED = {
    "precision": multiclass_precision,
    "recall": multiclass_recall,
    "f1": multiclass_f1_score,
}


def youden_threshold(scores: Tensor, labels: Tensor) -> float:
    """The threshold with the largest sensitivity + specificity - 1 (Youden 1950).

    Choose it on validation cells and use it on test cells.

    Raises:
        ValueError: as :func:`ranking_metrics`.
    """
    _check(scores, labels)
    false_positive, true_positive, thresholds = binary_roc(scores, labels)
    # The first point of the curve calls nothing positive at a threshold of 1.
    return float(thresholds[torch.argmax(true_positive - false_positive)])


def all_metrics(scores: Tensor, labels: Tensor, chosen_threshold: float) -> dict[str, float]:
    """Ranking figures, decisions at 0.5, and decisions at ``chosen_threshold`` (``@youden``)."""
    chosen = decision_metrics(scores, labels, chosen_threshold)
    return {
        **ranking_metrics(scores, labels),
        **decision_metrics(scores, labels, 0.5),
        **{f"{name}@youden": value for name, value in chosen.items()},
    }


def _check(scores: Tensor, labels: Tensor) -> None:
    if not bool(((scores >= 0) & (scores <= 1)).all()):
        raise ValueError("scores must lie in [0, 1]; NaN does not")
    if len(labels.unique()) != 2:
        raise ValueError(f"both classes are needed, found labels {labels.unique().tolist()}")
