"""Where to cut the score: chosen on validation cells, frozen, then used on test cells."""

from collections.abc import Mapping

import numpy as np

from leuk.evaluate.vectors import Floats, Integers, Vector, as_scores_and_labels

DEFAULT = "default"
"""The threshold whose figures carry no suffix."""

Thresholds = Mapping[str, float]
"""Name to threshold; a cell is called leukemic where its score is at least that."""

_WANTED = 0.95


def choose_thresholds(scores: Vector, labels: Vector) -> dict[str, float]:
    """Thresholds from validation cells.

    Args:
        scores: ``(N,)`` probability of leukemia, in [0, 1].
        labels: ``(N,)``, 1 = leukemic; both classes present.

    Returns:
        ``default`` (0.5), ``youden`` (largest sensitivity + specificity - 1) and ``sensitivity95``
        (the largest with a sensitivity of at least 0.95 on these cells).

    Raises:
        ValueError: only one class, or scores outside [0, 1].
    """
    return {
        DEFAULT: 0.5,
        "youden": youden_threshold(scores, labels),
        "sensitivity95": sensitivity_threshold(scores, labels),
    }


def youden_threshold(scores: Vector, labels: Vector) -> float:
    """The threshold with the largest sensitivity + specificity - 1 (Youden 1950).

    Raises:
        ValueError: as :func:`choose_thresholds`.
    """
    checked, truth = as_scores_and_labels(scores, labels)
    cuts, healthy, leukemic = called_at_each(checked, truth)
    # In whole cells, so that equal sums are equal; calling nobody leukemic comes first.
    gained = leukemic * healthy[-1] - healthy * leukemic[-1]
    return float(np.append(1.0, cuts)[np.argmax(np.append(0, gained))])


def called_at_each(scores: Floats, labels: Integers) -> tuple[Floats, Integers, Integers]:
    """Every score as a threshold, the highest first, and whom it calls leukemic.

    Written out, since a library's checks would take most of the time of a large report.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)``, 1 = leukemic.

    Returns:
        The distinct scores, and how many healthy and leukemic cells have at least each.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=np.inf))
    leukemic = np.cumsum(labels[order])[last]
    return scores[order][last], last + 1 - leukemic, leukemic


def sensitivity_threshold(scores: Vector, labels: Vector, wanted: float = _WANTED) -> float:
    """The largest threshold that still finds the share ``wanted`` of the leukemic cells.

    Raises:
        ValueError: as :func:`choose_thresholds`.
    """
    checked, truth = as_scores_and_labels(scores, labels)
    surest_first = np.sort(checked[truth == 1])[::-1]
    reached = np.arange(1, len(surest_first) + 1) / len(surest_first)
    return float(surest_first[np.argmax(reached >= wanted)])


def suffixed(name: str, threshold: str) -> str:
    """Name of a figure at a threshold: ``mcc`` at the default one, else ``mcc@youden``."""
    return name if threshold == DEFAULT else f"{name}@{threshold}"
