"""Pairs of a leukemic and a healthy cell, counted by the subjects they are of.

An AUROC is the share of pairs in right order, so that these counts give it for any weights of the
subjects, and for two models whose scores are swapped.
"""

import numpy as np

from leuk.evaluate.vectors import Flags, Floats, Integers


def pairs_won(scores: Floats, labels: Flags, subjects: Integers, count: int) -> Floats:
    """In how many pairs the leukemic cells of one subject outscore the healthy cells of another.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)`` whether leukemic.
        subjects: ``(N,)`` numbers from 0 of the subjects.
        count: how many subjects.

    Returns:
        ``(S, S)``: row the subject of the leukemic cell, column that of the healthy one; a tie is
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


def beaten(scores: Floats, labels: Integers, weights: Floats, at: Floats, label: int) -> Floats:
    """Weight of the other class's images with which an image of a class is in the right order.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)``, 1 = leukemic.
        weights: ``(N,)`` of the images.
        at: ``(M,)`` scores of images of the class ``label``.
        label: their class.

    Returns:
        ``(M,)``; a tie is half its weight.
    """
    others = labels != label
    order = np.argsort(scores[others], kind="stable")
    other, below = scores[others][order], np.append(0, weights[others][order].cumsum())
    left, right = (below[np.searchsorted(other, at, side=side)] for side in ("left", "right"))
    lower = (left + right) / 2
    return np.asarray(lower if label == 1 else below[-1] - lower)
