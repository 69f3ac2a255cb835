"""The thesis's way of counting, so that its tables 3 to 5 stand beside ours like for like.

Its labels came from sorted folder names (all = 0, hem = 1), so that its positive class is
*healthy*; its AUC is that of hard labels; and its averages switch between macro and weighted inside
one table. None of this is used for a figure of ours.
"""

import numpy as np

from leuk.evaluate.resampling import Reweighted
from leuk.evaluate.thresholds import DEFAULT
from leuk.evaluate.vectors import Vector, as_scores_and_labels

_AVERAGED = ("precision", "recall", "f1")


def thesis_figures(scores: Vector, labels: Vector, threshold: float = 0.5) -> dict[str, float]:
    """A model's figures in the convention of the thesis.

    Args:
        scores: ``(N,)`` probability of leukemia, in [0, 1].
        labels: ``(N,)`` ours, 1 = leukemic; both classes present.
        threshold: cells with at least this score are called leukemic.

    Returns:
        ``accuracy``; ``sensitivity``, which there is the recall of *healthy* cells, and
        ``specificity``, that of leukemic ones; ``auc`` of hard labels, which is balanced accuracy;
        and ``precision``, ``recall`` and ``f1`` each ``_macro`` and ``_weighted``.

    Raises:
        ValueError: as :func:`leuk.evaluate.metrics.ranking_metrics`.
    """
    checked, truth = as_scores_and_labels(scores, labels)
    everybody = np.zeros(len(truth), np.int64)
    cells = Reweighted(checked, truth, everybody, {DEFAULT: checked >= threshold})
    ours = {name: float(figure[0, 0]) for name, figure in cells.decisions(np.ones((1, 1))).items()}
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
