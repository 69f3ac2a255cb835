"""Means of measures per image, with confidence intervals over patients.

Images of a patient are similar. Therefore patients are resampled, not images, and every patient has
the same weight, whatever its number of images.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from leuk.evaluate.hierarchy import Bootstrap, Fold
from leuk.evaluate.vectors import Floats

LEVEL = 0.95
"""Confidence level of every interval."""

ANY = (-math.inf, math.inf)
"""Bounds of an unbounded measure."""


@dataclass(frozen=True)
class Mean:
    """Mean over patients of the means over each patient's images.

    Attributes:
        value: the mean; NaN without finite values.
        low: lower end of the 95 % interval; NaN with fewer than two patients, which do not show how
            patients differ.
        high: upper end of the 95 % interval; NaN like ``low``.
        images: number of images with a finite value.
        subjects: number of patients of these images.
    """

    value: float
    low: float
    high: float
    images: int
    subjects: int


class SubjectMeans:
    """Means over the patients of the same B images.

    Args:
        subjects: ``(B,)``, the patient of each image.
        draws: bootstrap resamples of the patients.
        seed: seed of the resamples.
    """

    def __init__(self, subjects: npt.NDArray[np.generic], draws: int = 1000, seed: int = 0) -> None:
        self.codes = np.unique(subjects.astype(str), return_inverse=True)[1]
        self._bootstrap = cache(lambda count: _bootstrap(count, draws, seed))

    def of(self, values: Floats, bounds: tuple[float, float] = ANY) -> Mean:
        """Mean and interval of a measure.

        The interval is the value plus or minus t standard errors, which
        :mod:`leuk.evaluate.intervals` found best. With two finite bounds, the computation is on the
        log-odds of the relative position between the bounds.

        Args:
            values: ``(B,)``, a value per image; values that are not finite are excluded.
            bounds: range of the mean.
        """
        means = self._means(values)
        value, images = float(means.mean()) if len(means) else math.nan, int(_finite(values).sum())
        if len(means) < 2:
            return Mean(value, math.nan, math.nan, images, len(means))
        found = self._bootstrap(len(means)).estimate(
            lambda _, weights: (weights @ means) / weights.sum(axis=1)
        )
        lowest, highest = bounds
        if math.isfinite(lowest) and math.isfinite(highest):
            low, high = found.interval_within(LEVEL, lowest, highest, len(means))
        else:
            low, high = found.interval(LEVEL)
        return Mean(value, max(low, lowest), min(high, highest), images, len(means))

    def curve(self, values: Floats) -> Floats:
        """Means ``(K,)`` over patients of values ``(B, K)``, without intervals."""
        means = [self._means(column) for column in values.T]
        return np.array([column.mean() if len(column) else np.nan for column in means])

    def _means(self, values: Floats) -> Floats:
        """Mean of each patient with a finite value."""
        kept = _finite(values)
        sums = np.bincount(self.codes[kept], values[kept])
        counts = np.bincount(self.codes[kept])
        return np.asarray(sums[counts > 0] / counts[counts > 0])


def _finite(values: Floats) -> npt.NDArray[np.bool_]:
    return np.isfinite(values)


def _bootstrap(count: int, draws: int, seed: int) -> Bootstrap[None]:
    return Bootstrap([Fold([None], [np.arange(count)], count)], draws, seed)
