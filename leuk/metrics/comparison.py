"""Comparison of two models on the same test images.

Paired (same images), clustered (patients, not images, are drawn) and hierarchical (seeds within
folds). The report compares runs of the grid with it.

The p value is the larger of two tests: one swaps the models' scores per patient, the other divides
the difference by its standard error over patients (cluster t). Swapping ranks instead of scores, as
Venkatraman & Begg (1996) do for single images, does not keep the level here, because ranks depend
on which patients are swapped. Rate of p <= 0.05 for two models that differ by chance alone, in
1,000 simulated test sets with a tenth of the images per patient of C-NMC's folds 0 and 1, pooled
and in three folds (``tests/benchmarks/intervals.py``):

| | swap | t | larger |
|---|---|---|---|
| AUROC, pooled | 0.052 | 0.032 | 0.026 |
| AUROC (patients), pooled | 0.062 | 0.054 | 0.047 |
| AUROC, three folds | 0.047 | 0.023 | 0.013 |
| AUROC (patients), three folds | 0.052 | 0.028 | 0.025 |
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from scipy.special import stdtr

from leuk.data.labels import Label
from leuk.metrics.arrays import Floats
from leuk.metrics.bootstrap import (
    PATIENTS,
    Bootstrap,
    Fold,
    Reweighted,
    Sample,
    group_by_fold,
    metric_range,
    weight_outranked,
)
from leuk.metrics.thresholds import DEFAULT, Thresholds

_POWER = 0.8
_AT_HALF: Thresholds = {DEFAULT: 0.5}
_HAIR = 1e-12
"""Tolerance for differences that are equal up to rounding."""


@dataclass(frozen=True)
class Difference:
    """Difference of two models in a metric.

    Attributes:
        metric: name of the metric.
        difference: second model minus first.
        low: lower end of its confidence interval, from resampled subjects (and seeds, if several);
            the smallest possible value if a class has a single patient, who does not show how
            patients differ.
        high: upper end of the interval; the largest possible value in the same case.
        p: two-sided p value, the larger of ``p_swap`` and ``p_t``.
        detectable: minimum detectable difference: the smallest true difference that a test at 5 %
            finds on this test set with 80 % power; smaller effects cannot be excluded.
        folds: number of folds.
        runs: number of pairs of runs.
        p_swap: p value of the test that swaps both models' scores per patient.
        p_t: p value of the t test with standard errors over patients (and seeds, if several).
    """

    metric: str
    difference: float
    low: float
    high: float
    p: float
    detectable: float
    folds: int
    runs: int
    p_swap: float = float("nan")
    p_t: float = float("nan")


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two models on the same images: separate for the bootstrap, mixed for the permutations.

    Attributes:
        one: predictions of the first model.
        other: predictions of the second model for the same images.
        cuts: thresholds of the first model.
        other_cuts: thresholds of the second model.
    """

    one: Sample
    other: Sample
    cuts: Thresholds
    other_cuts: Thresholds

    @cached_property
    def first(self) -> Reweighted:
        return _reweighted(self.one, self.cuts)

    @cached_property
    def second(self) -> Reweighted:
        return _reweighted(self.other, self.other_cuts)

    def difference(self, metric: str, weights: Floats) -> Floats:
        return self.second.metric(metric, weights) - self.first.metric(metric, weights)

    def swapped(self, metric: str, swaps: Floats) -> Floats:
        """Differences ``(P,)`` after swapping the scores of the subjects marked 1 in ``(P, S)``."""
        if metric in ("auroc", f"auroc{PATIENTS}"):
            return self._swapped_auroc(metric, swaps)
        one, other = np.hstack([1 - swaps, swaps]), np.hstack([swaps, 1 - swaps])
        return self._mixed.metric(metric, other) - self._mixed.metric(metric, one)

    def _swapped_auroc(self, metric: str, swaps: Floats) -> Floats:
        """Differences in AUROC, which are linear in the swaps.

        The number of pairs is constant, and pairs of two swapped patients cancel between the
        models. So the effect of swapping a patient is that of giving each image its other score
        among the images of both models.
        """
        one, other = self.one, self.other
        weights = one.image_weights if metric.endswith(PATIENTS) else np.ones(len(one))
        gained = np.zeros(len(one))
        for model in (one, other):
            for label in Label:
                chosen = one.labels == label
                before, after = (
                    weight_outranked(model.scores, one.labels, weights, at.scores[chosen], label)
                    for at in (one, other)
                )
                gained[chosen] += before - after
        changed = np.bincount(one.codes, weights * gained, minlength=self.first.count)
        leukemic = one.labels == Label.ALL
        pairs = weights[leukemic].sum() * weights[~leukemic].sum()
        found = self.difference(metric, np.ones((1, self.first.count)))
        return np.asarray(found + swaps @ changed / pairs)

    @cached_property
    def _mixed(self) -> Reweighted:
        """Images of both models, with separate subject numbers for the second model."""
        samples = (self.one, self.other)
        calibrated = [sample.calibrated for sample in samples if sample.calibrated is not None]
        decisions, other_decisions = (
            self.one.decided(self.cuts),
            self.other.decided(self.other_cuts),
        )
        return Reweighted(
            np.concatenate([sample.scores for sample in samples]),
            np.tile(self.one.labels, 2),
            np.concatenate([self.one.codes, self.one.codes + self.first.count]),
            {cut: np.concatenate([decisions[cut], other_decisions[cut]]) for cut in decisions},
            np.concatenate(calibrated) if len(calibrated) == len(samples) else None,
        )


def _reweighted(sample: Sample, cuts: Thresholds) -> Reweighted:
    return sample.at_half if cuts == _AT_HALF else sample.reweighted(cuts)


def paired_difference(
    a: Sequence[Sample],
    b: Sequence[Sample],
    metric: str = "auroc",
    thresholds: Sequence[tuple[Thresholds, Thresholds]] | None = None,
    draws: int = 1000,
    permutations: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Compare two models over matching runs.

    ``a[i]`` and ``b[i]`` are tested on the same images with the same seed. Runs with the same
    images are seeds of a fold; the metric is averaged over seeds, then over folds.

    The test swaps the two models' scores for whole subjects, in all seeds of a fold at once. If the
    models do not differ, swapped scores are as likely as the observed ones, however alike the
    images of a subject are. Swapping assumes that scores of both models have the same meaning and
    treats the runs as fixed, so ``p`` is at least that of a t test with a standard error over
    patients and seeds, if there are several. With one seed per fold a lucky seed cannot be
    distinguished from a better model.

    Args:
        a: runs of the first model.
        b: runs of the second model, in the same order.
        metric: a metric of :func:`leuk.metrics.classification.all_metrics`.
        thresholds: for each run the thresholds of both models; 0.5 as ``default`` if None.
        draws: bootstrap resamples.
        permutations: random swaps; the smallest ``p`` is 1 / (permutations + 1).
        seed: seed of resamples and swaps.
        level: confidence level of the interval, in (0, 1).

    Raises:
        ValueError: runs that do not match, a subject tested in two folds, or an unknown metric.
    """
    _check(a, b)
    cuts = thresholds or [(_AT_HALF, _AT_HALF)] * len(a)
    folds: list[Fold[_Pair]] = []
    for positions in group_by_fold(a):
        runs = [_Pair(a[i], b[i], *cuts[i]) for i in positions]
        first = a[positions[0]]
        folds.append(Fold(runs, first.strata, runs[0].first.count, first.images))
    found = Bootstrap(folds, draws, seed).estimate(
        lambda run, weights: run.difference(metric, weights),
        equal=metric.partition("@")[0].endswith(PATIENTS),
    )
    p_swap = _permuted(folds, metric, found.value, permutations, seed)
    if any(sample.subjects_of(label) == 1 for sample in a for label in Label):
        # A single patient does not show how patients differ.
        found = replace(found, error=np.inf)
    # The standard error is 0 for models that are equally good on every patient.
    p_t = p_swap
    if found.error:
        p_t = float(2 * stdtr(found.freedom, -abs(found.value) / found.error))
    lowest, highest = metric_range(metric)
    most = highest - lowest
    low, high = np.clip(found.interval(level), -most, most)
    detectable = (found.quantile((1 + level) / 2) + found.quantile(_POWER)) * found.error
    return Difference(
        metric,
        found.value,
        float(low),
        float(high),
        max(p_swap, p_t),
        min(detectable, most),
        len(folds),
        len(a),
        p_swap,
        p_t,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for multiple comparisons (Holm 1979), in the given order.

    Comparing each with 0.05 keeps the probability of any false positive among them below 5 %.

    Raises:
        ValueError: a value outside [0, 1].
    """
    values = np.asarray(p_values, np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("p values must be in [0, 1], not NaN")
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(stepped).clip(max=1)
    return [float(value) for value in adjusted]


def _check(a: Sequence[Sample], b: Sequence[Sample]) -> None:
    if len(a) != len(b):
        raise ValueError(f"runs must match one to one, found {len(a)} and {len(b)}")
    for position, (one, other) in enumerate(zip(a, b, strict=True)):
        if one.fingerprint != other.fingerprint:
            raise ValueError(
                f"run {position}: the two models were not tested on the same images, or not in the "
                "same order; compare runs of the same split, fold and data"
            )


def _permuted(
    folds: Sequence[Fold[_Pair]], metric: str, found: float, permutations: int, seed: int
) -> float:
    """Share of swaps with a difference at least as large, including the observed data."""
    differences = np.zeros(permutations)
    counts = tuple(fold.count for fold in folds)
    for fold, swaps in zip(folds, _swaps(counts, permutations, seed), strict=True):
        of_runs = [run.swapped(metric, swaps) for run in fold.runs]
        differences += np.mean(of_runs, axis=0) / len(folds)
    larger = int((np.abs(differences) >= abs(found) - _HAIR).sum())
    return (larger + 1) / (permutations + 1)


@lru_cache(maxsize=1)
def _swaps(counts: tuple[int, ...], permutations: int, seed: int) -> list[Floats]:
    """Random swaps ``(permutations, S)`` per fold, cached for all comparisons of a split."""
    generator = np.random.default_rng([seed, 1])
    return [generator.integers(0, 2, size=(permutations, n)).astype(np.float64) for n in counts]
