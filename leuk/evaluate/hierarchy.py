"""Standard errors of means over folds, with subjects and seeds nested in folds.

A *fold* is one set of test images; its *runs* are models of different seeds evaluated on it. A
metric is averaged over the runs of a fold, then over folds, since scores of different models cannot
be pooled. Subjects and, if a fold has several, seeds are resampled together (the pigeonhole
bootstrap, Owen 2007, whose variance errs, if at all, on the large side).
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from scipy.special import expit, logit, stdtrit

from leuk.data.effective import effective_number
from leuk.evaluate.resampling import left_out, resamples
from leuk.evaluate.sample import Sample
from leuk.evaluate.vectors import Flags, Floats, Integers

Run = TypeVar("Run")

_ROUNDING = 1e-12
"""Standard error below which a value counts as exact."""

_NOTHING = 1e-12
"""Share of the variance below which that of a stratum is rounding error."""


@dataclass(frozen=True)
class Fold(Generic[Run]):
    """Set of test images.

    Attributes:
        runs: results on these images, one per seed.
        strata: numbers of the subjects of each stratum, which are resampled among themselves.
        count: number of subjects.
        images: ``(count,)`` images per subject; equally many if None.
    """

    runs: Sequence[Run]
    strata: Sequence[Integers]
    count: int
    images: Integers | None = None

    def effective(self, members: Integers) -> float:
        """Effective number of subjects in a stratum, by their images."""
        if self.images is None:
            return float(len(members))
        return effective_number(self.images[members])


@dataclass(frozen=True)
class Estimate:
    """A metric with its standard error.

    Attributes:
        value: value on all subjects.
        error: standard error: that of the bootstrap or of the jackknife, whichever is larger.
            Bootstrap draws rarely leave out a subject with most of the images, so that its
            difference from the others hardly shows; the jackknife leaves out each subject
            (MacKinnon, Nielsen & Webb 2023, *Journal of Applied Econometrics* 38).
        freedom: degrees of freedom of that error, the smaller of two. The first follows from the
            variances of each class and between seeds (Satterthwaite 1946). The second distributes
            the variance between subjects as if all subjects varied alike (Imbens & Kolesar 2016,
            *Review of Economics and Statistics* 98(4), section 3): if three healthy subjects happen
            to be alike, the first would equal that of the leukemic subjects. The degrees of freedom
            of a class follow from its effective number of subjects, since a subject with most of
            the images dominates the error as well as the value (Carter, Schnepel & Steigerwald
            2017).
    """

    value: float
    error: float
    freedom: float

    def quantile(self, level: float) -> float:
        """Quantile of Student's t with this estimate's degrees of freedom."""
        return float(stdtrit(self.freedom, level))

    def interval(self, level: float) -> tuple[float, float]:
        """Confidence interval: the value plus and minus t standard errors."""
        half = self.quantile((1 + level) / 2) * self.error
        return self.value - half, self.value + half

    def interval_within(
        self, level: float, lowest: float, highest: float, patients: float
    ) -> tuple[float, float]:
        """Confidence interval of a bounded value, computed on the log-odds of its position.

        At a bound all patients agree and no spread can be estimated. Every patient then counts as a
        single observation, the worst case of images that are alike, and the interval is exact
        (Clopper & Pearson 1934).

        Args:
            level: confidence level, in (0, 1).
            lowest: lower bound of the value.
            highest: upper bound of the value.
            patients: effective number of patients behind the value.

        Returns:
            Lower and upper end. They are equal for a value between the bounds that no draw changes,
            such as the AUROC of constant scores.
        """
        share = (self.value - lowest) / (highest - lowest)
        unanimous = (highest - lowest) * ((1 - level) / 2) ** (1 / patients)
        if share <= _ROUNDING:
            return lowest, highest - unanimous
        if share >= 1 - _ROUNDING:
            return lowest + unanimous, highest
        if self.error < _ROUNDING:
            return self.value, self.value
        slope = 1 / ((highest - lowest) * share * (1 - share))
        half = self.quantile((1 + level) / 2) * self.error * slope
        low, high = expit(logit(share) + np.array([-half, half])) * (highest - lowest) + lowest
        return float(low), float(high)


class _Component(NamedTuple):
    """Variance component of each of F metrics: between a stratum's subjects, or between seeds.

    Attributes:
        variance: ``(F,)`` the variance.
        freedom: ``(F,)`` its degrees of freedom.
        subjects: number of subjects; 0 for the seeds.
    """

    variance: Floats
    freedom: Floats
    subjects: int


class Bootstrap(Generic[Run]):
    """Resamples of folds, shared by all metrics of their runs.

    Args:
        folds: folds with disjoint subjects.
        draws: number of resamples.
        seed: seed of the resamples.
    """

    def __init__(self, folds: Sequence[Fold[Run]], draws: int, seed: int) -> None:
        self.folds = folds
        self._draws = draws
        described = (
            (tuple(tuple(members.tolist()) for members in fold.strata), fold.count, len(fold.runs))
            for fold in folds
        )
        self._weights = _weights(tuple(described), draws, seed)

    def estimates(
        self, metrics: Callable[[Run, Floats], Floats], equal: Flags | None = None
    ) -> list[Estimate]:
        """Estimate the means of several metrics over runs and folds.

        Args:
            metrics: function of a run and weights ``(D, S)`` of the subjects of its fold that
                returns values ``(F, D)``.
            equal: ``(F,)`` True for metrics in which all subjects weigh the same, however many
                images they have; False for all if None.
        """
        share = 1 / len(self.folds)
        values: Floats = np.zeros(())
        drawn: Floats = np.zeros(())
        components: list[_Component] = []
        for fold, (subjects, seeds) in zip(self.folds, self._weights, strict=True):
            found = np.stack([metrics(run, subjects) for run in fold.runs])
            values = values + share * found[..., 0].mean(axis=0)
            spread = found[..., 1 : self._draws + 1] * seeds.T[:, None]
            drawn = drawn + share * spread.mean(axis=0)
            components += [
                component._replace(variance=share**2 * component.variance)
                for component in self._jackknifed(fold, found, equal)
            ]
        jackknife = np.sqrt(sum((c.variance for c in components), np.zeros(len(values))))
        error = np.maximum(drawn.std(axis=1, ddof=1), jackknife)
        freedom = np.minimum(
            _freedom(components, len(values)), _freedom(_alike(components), len(values))
        )
        columns = zip(values, error, freedom, strict=True)
        return [Estimate(*map(float, column)) for column in columns]

    def estimate(self, metric: Callable[[Run, Floats], Floats], equal: bool = False) -> Estimate:
        """Estimate the mean of a metric, a function of run and weights ``(D, S)`` to ``(D,)``."""
        return self.estimates(lambda run, weights: metric(run, weights)[None], np.array([equal]))[0]

    def _jackknifed(self, fold: Fold[Run], found: Floats, equal: Flags | None) -> list[_Component]:
        """Variance components of each stratum and, if there are several, of the seeds."""
        means, at = found.mean(axis=0), 1 + self._draws
        weighed = np.zeros(len(means), bool) if equal is None else equal
        components = []
        for members in _several(fold.strata):
            n = len(members)
            freedom = np.where(weighed, n - 1, max(fold.effective(members) - 1, 1))
            components.append(_Component(_variances(means[:, at : at + n]), freedom, n))
            at += n
        runs = len(fold.runs)
        if runs > 1:
            variances = _variances(found[..., 0].T @ left_out(np.arange(runs), runs).T / runs)
            components.append(_Component(variances, np.full(len(means), runs - 1.0), 0))
        return components


@lru_cache(maxsize=4)
def _weights(
    folds: Sequence[tuple[Sequence[Sequence[int]], int, int]], draws: int, seed: int
) -> list[tuple[Floats, Floats]]:
    """Weights of subjects and seeds of each fold, cached for all configurations of a split.

    Args:
        folds: strata, number of subjects and number of seeds of each fold.
        draws: number of resamples. The rows of weights are: all subjects once, the resamples, and
            a row per left-out subject.
        seed: seed of the resamples.
    """
    generator = np.random.default_rng(seed)
    weights = []
    for numbers, count, runs in folds:
        strata = [np.array(members) for members in numbers]
        rows = [np.ones((1, count)), resamples(strata, count, draws, generator)]
        rows += [left_out(members, count) for members in _several(strata)]
        seeds = resamples([np.arange(runs)], runs, draws, generator)
        weights.append((np.concatenate(rows), seeds))
    for shared in itertools.chain(*weights):
        shared.setflags(write=False)
    return weights


def group_by_fold(samples: Sequence[Sample]) -> list[list[int]]:
    """Group the positions of samples of the same images, which form a fold, in their order.

    Raises:
        ValueError: no sample, or a subject tested in two folds.
    """
    if not samples:
        raise ValueError("no sample to take the mean of")
    folds: list[list[int]] = []
    for position, sample in enumerate(samples):
        for fold in folds:
            if samples[fold[0]].fingerprint == sample.fingerprint:
                fold.append(position)
                break
        else:
            folds.append([position])
    seen: set[str] = set()
    for fold in folds:
        own = set(samples[fold[0]].subjects.astype(str).tolist())
        if twice := seen & own:
            raise ValueError(
                f"subjects {', '.join(sorted(twice)[:3])} are tested in two folds, or their images "
                "are not in the same order in all runs"
            )
        seen |= own
    return folds


def _several(strata: Sequence[Integers]) -> list[Integers]:
    return [members for members in strata if len(members) > 1]


def _variances(without: Floats) -> Floats:
    """Jackknife variances ``(F,)`` from values ``(F, n)``, each leaving out one of n members."""
    n = without.shape[1]
    off = without - without.mean(axis=1, keepdims=True)
    return np.asarray((n - 1) / n * (off**2).sum(axis=1))


def _alike(components: Sequence[_Component]) -> list[_Component]:
    """Distribute the variance between subjects over strata as if all subjects varied alike.

    Only over strata that vary at all: no healthy subject changes a sensitivity.
    """
    seeds = [component for component in components if not component.subjects]
    strata = [component for component in components if component.subjects]
    total = np.asarray(sum(stratum.variance for stratum in strata))
    shares = [(stratum.variance > _NOTHING * total) / stratum.subjects for stratum in strata]
    whole = np.maximum(sum(shares), np.finfo(np.float64).tiny)
    alike = [
        stratum._replace(variance=total * share / whole)
        for stratum, share in zip(strata, shares, strict=True)
    ]
    return alike + seeds


def _freedom(components: Sequence[_Component], count: int) -> Floats:
    """Degrees of freedom ``(F,)`` of a sum of variances; 1 for a metric that does not vary."""
    total = sum((component.variance for component in components), np.zeros(count))
    varies = total > 0
    # Shares avoid underflow: the square of a perfect model's variance, such as 1e-170, is 0.
    terms = [(p.variance[varies] / total[varies]) ** 2 / p.freedom[varies] for p in components]
    found = np.ones(count)
    found[varies] = 1 / sum(terms, np.zeros(int(varies.sum())))
    return found
