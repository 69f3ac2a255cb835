"""Pairs of a leukemic and a healthy image, counted by their subjects.

AUROC is the share of pairs in the right order, so these counts give it for any weights of the
subjects, and for two models with swapped scores.
"""

import numpy as np

from leuk.evaluate.vectors import Flags, Floats, Integers


def pairs_won(scores: Floats, labels: Flags, subjects: Integers, count: int) -> Floats:
    """Count the pairs in which a subject's leukemic images outscore another's healthy images.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)`` True for leukemic.
        subjects: ``(N,)`` subject numbers, from 0.
        count: number of subjects.

    Returns:
        ``(S, S)``: rows are subjects of leukemic images, columns of healthy images; a tie counts as
        half a pair.
    """
    order = np.argsort(scores[~labels], kind="stable")
    healthy = scores[~labels][order]
    below = np.zeros((len(order) + 1, count), np.int32)
    below[np.arange(1, len(order) + 1), subjects[~labels][order]] = 1
    below = below.cumsum(axis=0, dtype=np.int32)
    by_subject = np.argsort(subjects[labels], kind="stable")
    leukemic = scores[labels][by_subject]
    outscored = below[np.searchsorted(healthy, leukemic)]
    outscored += below[np.searchsorted(healthy, leukemic, side="right")]
    present, starts = np.unique(subjects[labels][by_subject], return_index=True)
    won = np.zeros((count, count))
    won[present] = np.add.reduceat(outscored, starts, axis=0, dtype=np.int64) / 2
    return won


def weight_outranked(
    scores: Floats, labels: Integers, weights: Floats, at: Floats, label: int
) -> Floats:
    """Sum the weights of the images of the other class that are in the right order with a score.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)``, 1 = leukemic.
        weights: ``(N,)`` weights of the images.
        at: ``(M,)`` scores of images of the class ``label``.
        label: class of these images, 0 or 1.

    Returns:
        ``(M,)`` sums; a tie counts half its weight.
    """
    others = labels != label
    order = np.argsort(scores[others], kind="stable")
    other, below = scores[others][order], np.append(0, weights[others][order].cumsum())
    left, right = (below[np.searchsorted(other, at, side=side)] for side in ("left", "right"))
    lower = (left + right) / 2
    return np.asarray(lower if label == 1 else below[-1] - lower)
