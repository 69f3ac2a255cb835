"""Metrics in the thesis's conventions, so that its tables 3 to 5 can be compared with ours.

Its labels came from sorted folder names (all = 0, hem = 1), so its positive class is *healthy*; its
AUC is computed from hard labels; and its averages switch between macro and weighted within a table.
Only the comparison with the thesis uses these conventions.
"""

import numpy as np

from leuk.evaluate.resampling import Reweighted
from leuk.evaluate.thresholds import DEFAULT
from leuk.evaluate.vectors import Vector, as_scores_and_labels

_AVERAGED = ("precision", "recall", "f1")


def thesis_metrics(scores: Vector, labels: Vector, threshold: float = 0.5) -> dict[str, float]:
    """Metrics of a model in the conventions of the thesis.

    Args:
        scores: ``(N,)`` probability of leukemia, in [0, 1].
        labels: ``(N,)``, 1 = leukemic (not the thesis's coding); both classes present.
        threshold: images with at least this score are called leukemic.

    Returns:
        ``accuracy``; ``sensitivity``, in the thesis the recall of *healthy* images, and
        ``specificity``, the recall of leukemic images; ``auc`` of hard labels, equal to balanced
        accuracy; and ``precision``, ``recall`` and ``f1`` each ``_macro`` and ``_weighted``.

    Raises:
        ValueError: see :func:`leuk.evaluate.metrics.ranking_metrics`.
    """
    checked, truth = as_scores_and_labels(scores, labels)
    single = np.zeros(len(truth), np.int64)  # all images as those of a single subject
    images = Reweighted(checked, truth, single, {DEFAULT: checked >= threshold})
    ours = {name: float(value[0, 0]) for name, value in images.decisions(np.ones((1, 1))).items()}
    return {
        "accuracy": ours["accuracy"],
        "sensitivity": ours["recall_hem"],
        "specificity": ours["recall_all"],
        "auc": ours["balanced_accuracy"],
        **{
            f"{name}_{average}": ours[f"{name}_{average}"]
            for name in _AVERAGED
            for average in ("macro", "weighted")
        },
    }
