"""Means of what was measured on cells, with intervals over the persons behind them.

Cells of one person are alike, so that subjects are resampled and not cells, and every subject
counts as much as every other, however many of its cells were measured.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from leuk.evaluate.hierarchy import Bootstrap, Fold
from leuk.evaluate.vectors import Floats

LEVEL = 0.95
"""Of every interval."""

ANY = (-math.inf, math.inf)
"""Bounds of what has none."""


@dataclass(frozen=True)
class Mean:
    """A mean over subjects of their cells' means.

    Attributes:
        value: NaN where nothing was measured.
        low: of the 95 % interval; NaN where there are fewer than two subjects, whose differences
            cannot be told from one.
        high: likewise.
        cells: with a finite value.
        subjects: that they are of.
    """

    value: float
    low: float
    high: float
    cells: int
    subjects: int


class SubjectMeans:
    """Means over the same cells' subjects.

    Args:
        subjects: ``(B,)`` the person behind each cell.
        draws: resamples of the subjects.
        seed: of the resamples.
    """

    def __init__(self, subjects: npt.NDArray[np.generic], draws: int = 1000, seed: int = 0) -> None:
        self.codes = np.unique(subjects.astype(str), return_inverse=True)[1]
        self._bootstrap = cache(lambda count: _bootstrap(count, draws, seed))

    def of(self, values: Floats, bounds: tuple[float, float] = ANY) -> Mean:
        """Mean and interval of one number a cell.

        The interval is t standard errors either way, as :mod:`leuk.evaluate.intervals` found best;
        between two finite bounds on the log-odds of where the value lies between them.

        Args:
            values: ``(B,)``; what is not finite is left out.
            bounds: that the mean cannot pass.
        """
        means = self._means(values)
        value, cells = float(means.mean()) if len(means) else math.nan, int(_finite(values).sum())
        if len(means) < 2:
            return Mean(value, math.nan, math.nan, cells, len(means))
        found = self._bootstrap(len(means)).estimate(
            lambda _, weights: (weights @ means) / weights.sum(axis=1)
        )
        lowest, highest = bounds
        if math.isfinite(lowest) and math.isfinite(highest):
            low, high = found.interval_within(LEVEL, lowest, highest, len(means))
        else:
            low, high = found.interval(LEVEL)
        return Mean(value, max(low, lowest), min(high, highest), cells, len(means))

    def curve(self, values: Floats) -> Floats:
        """Means ``(K,)`` of ``(B, K)``."""
        means = [self._means(column) for column in values.T]
        return np.array([column.mean() if len(column) else np.nan for column in means])

    def _means(self, values: Floats) -> Floats:
        """Of each subject that has a finite value."""
        kept = _finite(values)
        sums = np.bincount(self.codes[kept], values[kept])
        counts = np.bincount(self.codes[kept])
        return np.asarray(sums[counts > 0] / counts[counts > 0])


def _finite(values: Floats) -> npt.NDArray[np.bool_]:
    return np.isfinite(values)


def _bootstrap(count: int, draws: int, seed: int) -> Bootstrap[None]:
    return Bootstrap([Fold([None], [np.arange(count)], count)], draws, seed)
