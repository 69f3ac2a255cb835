"""Comparison of two models on the same test images.

Paired (same images), clustered (patients, not images, are drawn) and hierarchical (seeds within
folds). The report compares runs of the grid with it.

The p value is the larger of two tests: one swaps the models' scores per patient, the other divides
the difference by its standard error over patients (cluster t). Swapping ranks instead of scores, as
Venkatraman & Begg (1996) do for single images, does not keep the level here, because ranks depend
on which patients are swapped. For two models that differ by chance alone, in 1,000 simulated test
sets like C-NMC's folds 0 and 1, the larger is at most 0.05 in 1 to 5 %, the first alone in 5 to 6 %
(``tests/benchmarks/intervals.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from leuk.data.labels import Label
from leuk.metrics.arrays import Floats
from leuk.metrics.bootstrap import LEVEL, Fold, estimates, group_by_fold
from leuk.metrics.classification import DEFAULT, Reweighted, Sample, Thresholds

_POWER = 0.8
_HAIR = 1e-12
"""Tolerance for differences that are equal up to rounding."""


@dataclass(frozen=True)
class Difference:
    """Difference of two models in a metric.

    The interval ``low`` to ``high`` is from resampled patients (and seeds, if several); it spans
    all possible values if a class has a single patient, who does not show how patients differ.
    ``detectable`` is the smallest true difference that a test at 5 % finds on this test set with
    80 % power; smaller effects cannot be excluded.
    """

    metric: str
    difference: float  # second model minus first
    low: float
    high: float
    p: float  # two-sided, the larger of p_swap and p_t
    detectable: float
    folds: int
    runs: int  # number of pairs
    p_swap: float = float("nan")  # of the test that swaps both models' scores per patient
    p_t: float = float("nan")  # with standard errors over patients (and seeds, if several)


class _Pair(NamedTuple):
    """Two models on the same images, and the images of both as those of twice the patients."""

    first: Reweighted
    second: Reweighted
    both: Reweighted


def _paired(one: Sample, other: Sample, cuts: Thresholds, other_cuts: Thresholds) -> _Pair:
    calibrated = None
    if one.calibrated is not None and other.calibrated is not None:
        calibrated = np.concatenate([one.calibrated, other.calibrated])
    names = one.subjects.astype(str)
    both = Sample(
        np.concatenate([one.scores, other.scores]),
        np.tile(one.labels, 2),
        # The patients of the second model follow those of the first.
        np.concatenate([np.char.add(model, names) for model in ("1 ", "2 ")]),
        calibrated,
    )
    at = {cut: np.repeat([cuts[cut], other_cuts[cut]], len(one)) for cut in cuts}
    return _Pair(one.reweighted(cuts), other.reweighted(other_cuts), Reweighted(both, at))


def paired_difference(
    a: Sequence[Sample],
    b: Sequence[Sample],
    metric: str = "auroc",
    thresholds: Sequence[tuple[Thresholds, Thresholds]] | None = None,
    draws: int = 1000,
    permutations: int = 2000,
) -> Difference:
    """Compare two models over matching runs.

    ``a[i]`` and ``b[i]`` are tested on the same images with the same seed. Runs with the same
    images are seeds of a fold; the metric is averaged over seeds, then over folds.

    The test swaps the two models' scores for whole patients, in all seeds of a fold at once. If the
    models do not differ, swapped scores are as likely as the observed ones, however alike the
    images of a patient are. Swapping assumes that scores of both models have the same meaning and
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

    Raises:
        ValueError: runs that do not match, a patient tested in two folds, or an unknown metric.
    """
    if len(a) != len(b):
        raise ValueError(f"runs must match one to one, found {len(a)} and {len(b)}")
    for position, (one, other) in enumerate(zip(a, b, strict=True)):
        if one.fingerprint != other.fingerprint:
            raise ValueError(
                f"run {position}: the two models were not tested on the same images, or not in the "
                "same order; compare runs of the same split, fold and data"
            )
    cuts = thresholds or [({DEFAULT: 0.5}, {DEFAULT: 0.5})] * len(a)
    folds: list[Fold[_Pair]] = []
    for positions in group_by_fold(a):
        first = a[positions[0]]
        runs = [_paired(a[i], b[i], *cuts[i]) for i in positions]
        folds.append(Fold(runs, first.strata, first.images))
    named = folds[0].runs[0].first.find(metric)

    def difference(run: _Pair, weights: Floats) -> Floats:
        return run.second.metrics(weights, [metric]) - run.first.metrics(weights, [metric])

    (found,) = estimates(folds, difference, draws, named.patients)
    p_swap = _swap_test(folds, metric, found.value, permutations)
    if any(sample.subjects_of(label) == 1 for sample in a for label in Label):
        # A single patient does not show how patients differ.
        found = replace(found, error=np.inf)
    # The standard error is 0 for models that are equally good on every patient.
    p_t = p_swap
    if found.error:
        p_t = float(2 * stdtr(found.freedom, -abs(found.value) / found.error))
    most = 1 - named.metric.lowest
    low, high = np.clip(found.interval(LEVEL), -most, most)
    detectable = (found.quantile((1 + LEVEL) / 2) + found.quantile(_POWER)) * found.error
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


def _swap_test(folds: Sequence[Fold[_Pair]], metric: str, found: float, permutations: int) -> float:
    """Share of swaps with a difference at least as large, including the observed data."""
    generator = np.random.default_rng([0, 1])
    differences = np.zeros(permutations)
    for fold in folds:
        swaps = generator.integers(0, 2, (permutations, len(fold.images))).astype(np.float64)
        one, other = np.hstack([1 - swaps, swaps]), np.hstack([swaps, 1 - swaps])
        of_runs = [
            run.both.metric(metric, other) - run.both.metric(metric, one) for run in fold.runs
        ]
        differences += np.mean(of_runs, axis=0) / len(folds)
    larger = int((np.abs(differences) >= abs(found) - _HAIR).sum())
    return (larger + 1) / (permutations + 1)


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
