"""Pairs of a leukemic and a healthy cell, counted by the subjects they are of.

An AUROC is the share of pairs in right order, so that these counts give it for any weights of the
subjects, and for two models whose scores are swapped.
"""

import numpy as np

from leuk.evaluate.vectors import Flags, Floats, Integers


def pairs_won(scores: Floats, labels: Flags, subjects: Integers, count: int) -> Floats:
    """In how many pairs the leukemic cells of one subject outscore the healthy cells of another.

    Returns:
        ``(S, S)``: row the subject of the leukemic cell, column that of the healthy one; a tie is
        half a pair.
    """
    ranked = Ranked(scores, labels, subjects, count)
    return ranked.won_against(ranked)


class Ranked:
    """One model's cells in order, ready for comparison with another model's of the same subjects.

    Args:
        scores: ``(N,)``; those of both models must be comparable.
        labels: ``(N,)`` whether leukemic.
        subjects: ``(N,)`` numbers from 0 of the subjects.
        count: how many subjects.
    """

    def __init__(self, scores: Floats, labels: Flags, subjects: Integers, count: int) -> None:
        order = np.argsort(scores[~labels], kind="stable")
        self._healthy = scores[~labels][order]
        below = np.zeros((len(order) + 1, count), np.int32)
        below[np.arange(1, len(order) + 1), subjects[~labels][order]] = 1
        self._below = below.cumsum(axis=0, dtype=np.int32)
        by_subject = np.argsort(subjects[labels], kind="stable")
        self._leukemic = scores[labels][by_subject]
        self._present, self._starts = np.unique(subjects[labels][by_subject], return_index=True)

    def won_against(self, other: "Ranked") -> Floats:
        """:func:`pairs_won` of this model's leukemic cells and the other's healthy ones."""
        outscored = other._below[np.searchsorted(other._healthy, self._leukemic)]
        outscored += other._below[np.searchsorted(other._healthy, self._leukemic, side="right")]
        count = self._below.shape[1]
        won = np.zeros((count, count))
        won[self._present] = np.add.reduceat(outscored, self._starts, axis=0, dtype=np.int64) / 2
        return won
