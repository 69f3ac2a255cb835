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


def pairs_at(ranks: Integers, labels: Integers) -> Floats:
    """In how many pairs with a model's cells another cell would be in right order, by its rank.

    Args:
        ranks: ``(N,)`` twice each cell's mean rank, from 2 to 2N.
        labels: ``(N,)``, 1 = leukemic.

    Returns:
        ``(2, 2N + 1)``: row the other cell's label, column twice its rank; a tie is half a pair.
    """
    healthy, leukemic = (
        np.bincount(ranks[labels == label], minlength=2 * len(ranks) + 1) for label in (0, 1)
    )
    above = leukemic[::-1].cumsum()[::-1] - leukemic / 2
    return np.stack([above, healthy.cumsum() - healthy / 2])
