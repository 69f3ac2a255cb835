"""Subjects within folds and seeds within folds: how a mean over them spreads.

A *fold* is one set of test cells; its *runs* are models of other seeds that judged the same cells.
A figure is meant over the runs of a fold, then over folds, since scores of different models cannot
be pooled. Subjects and, where a fold has several, seeds are resampled at once (the pigeonhole
bootstrap; Owen 2007: its variance errs, if at all, on the large side).
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
"""A smaller standard error is none."""

_NOTHING = 1e-12
"""Share of the variance below which a stratum's part is rounding."""


@dataclass(frozen=True)
class Fold(Generic[Run]):
    """One set of test cells.

    Attributes:
        runs: what was computed on it, one for each seed.
        strata: numbers of the subjects that are resampled among themselves.
        count: how many subjects there are.
        images: ``(count,)`` images per subject; equally many if None.
    """

    runs: Sequence[Run]
    strata: Sequence[Integers]
    count: int
    images: Integers | None = None

    def effective(self, members: Integers) -> float:
        """Effective number of the members of a stratum, by their images."""
        if self.images is None:
            return float(len(members))
        return effective_number(self.images[members])


@dataclass(frozen=True)
class Estimate:
    """A figure and how far it may be off.

    Attributes:
        value: on all subjects.
        error: standard error: the spread of the bootstrap draws or the jackknife's, whichever is
            larger. The draws rarely leave out a subject with most of the images, whose difference
            from the others is then hardly seen; the jackknife leaves out each (MacKinnon, Nielsen &
            Webb 2023, *Journal of Applied Econometrics* 38).
        freedom: degrees of freedom of that error, the smaller of two. One follows from the
            variances found in each class and between seeds (Satterthwaite 1946). The other spreads
            the variance between subjects as if all subjects varied alike (Imbens & Kolesar 2016,
            *Review of Economics and Statistics* 98(4), section 3): where three healthy subjects
            happen to be alike, the first has the freedom of the leukemic ones. The freedom of one
            class follows from its effective number of subjects, since one with most of the images
            decides the error as much as the value (Carter, Schnepel & Steigerwald 2017).
    """

    value: float
    error: float
    freedom: float

    def quantile(self, level: float) -> float:
        """Quantile of Student's t with this estimate's degrees of freedom."""
        return float(stdtrit(self.freedom, level))

    def interval(self, level: float) -> tuple[float, float]:
        """The value and t standard errors either way."""
        half = self.quantile((1 + level) / 2) * self.error
        return self.value - half, self.value + half

    def interval_within(
        self, level: float, lowest: float, highest: float, patients: float
    ) -> tuple[float, float]:
        """The same on the log-odds of where the value lies between two bounds it cannot pass.

        At a bound every patient agrees and no spread can be estimated. There every patient is one
        observation, the worst case of images that are alike, and the interval is the exact one
        (Clopper & Pearson 1934).

        Args:
            level: share of intervals that should hold the true value.
            lowest: bound of the value.
            highest: bound of the value.
            patients: effective number of patients behind the value.

        Returns:
            Lower and upper end. A value between the bounds that no draw changes has an interval
            without width, such as the AUROC of constant scores.
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


class _Part(NamedTuple):
    """Part of the variance of each of F figures: of a stratum's subjects, or of the seeds.

    Attributes:
        variance: ``(F,)``.
        freedom: ``(F,)`` its degrees of freedom.
        subjects: how many; 0 for the seeds.
    """

    variance: Floats
    freedom: Floats
    subjects: int


class Bootstrap(Generic[Run]):
    """The same resamples of the same folds, for any figure of their runs.

    Args:
        folds: whose subjects are other people in each.
        draws: how many resamples.
        seed: of the resamples.
    """

    def __init__(self, folds: Sequence[Fold[Run]], draws: int, seed: int) -> None:
        self.folds = folds
        self._draws = draws
        made_of = (
            (tuple(tuple(members.tolist()) for members in fold.strata), fold.count, len(fold.runs))
            for fold in folds
        )
        self._weights = _weights(tuple(made_of), draws, seed)

    def estimates(
        self, figures: Callable[[Run, Floats], Floats], equal: Flags | None = None
    ) -> list[Estimate]:
        """Means over runs and folds of several figures at once.

        Args:
            figures: from a run and weights ``(D, S)`` of the subjects of its fold to ``(F, D)``.
            equal: ``(F,)`` in which figures subjects weigh the same, however many images they have;
                in none if None.
        """
        share = 1 / len(self.folds)
        values: Floats = np.zeros(())
        drawn: Floats = np.zeros(())
        parts: list[_Part] = []
        for fold, (subjects, seeds) in zip(self.folds, self._weights, strict=True):
            found = np.stack([figures(run, subjects) for run in fold.runs])
            values = values + share * found[..., 0].mean(axis=0)
            spread = found[..., 1 : self._draws + 1] * seeds.T[:, None]
            drawn = drawn + share * spread.mean(axis=0)
            parts += [
                part._replace(variance=share**2 * part.variance)
                for part in self._jackknifed(fold, found, equal)
            ]
        jackknife = np.sqrt(sum((part.variance for part in parts), np.zeros(len(values))))
        error = np.maximum(drawn.std(axis=1, ddof=1), jackknife)
        freedom = np.minimum(_freedom(parts, len(values)), _freedom(_alike(parts), len(values)))
        columns = zip(values, error, freedom, strict=True)
        return [Estimate(*map(float, column)) for column in columns]

    def estimate(self, figure: Callable[[Run, Floats], Floats], equal: bool = False) -> Estimate:
        """The same of one figure: from a run and weights ``(D, S)`` to ``(D,)``."""
        return self.estimates(lambda run, weights: figure(run, weights)[None], np.array([equal]))[0]

    def _jackknifed(self, fold: Fold[Run], found: Floats, equal: Flags | None) -> list[_Part]:
        """The part of each stratum, and that of the seeds where there are several."""
        means, at = found.mean(axis=0), 1 + self._draws
        weighed = np.zeros(len(means), bool) if equal is None else equal
        parts = []
        for members in _several(fold.strata):
            n = len(members)
            freedom = np.where(weighed, n - 1, max(fold.effective(members) - 1, 1))
            parts.append(_Part(_variances(means[:, at : at + n]), freedom, n))
            at += n
        runs = len(fold.runs)
        if runs > 1:
            variances = _variances(found[..., 0].T @ left_out(np.arange(runs), runs).T / runs)
            parts.append(_Part(variances, np.full(len(means), runs - 1.0), 0))
        return parts


@lru_cache(maxsize=4)
def _weights(
    folds: Sequence[tuple[Sequence[Sequence[int]], int, int]], draws: int, seed: int
) -> list[tuple[Floats, Floats]]:
    """Weights of the subjects and of the seeds of each fold; lines of a split share them.

    Args:
        folds: strata, how many subjects and how many seeds.
        draws: how many resamples; above them stands what was found, below what leaves one out.
        seed: of the resamples.
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


def folds_of(samples: Sequence[Sample]) -> list[list[int]]:
    """Positions of the samples of each fold: those that judge the same cells, in their order.

    Raises:
        ValueError: none, or a subject that is tested in two folds.
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
                f"subjects {', '.join(sorted(twice)[:3])} are tested in two folds, or their cells "
                "are not in the same order in all runs"
            )
        seen |= own
    return folds


def _several(strata: Sequence[Integers]) -> list[Integers]:
    return [members for members in strata if len(members) > 1]


def _variances(without: Floats) -> Floats:
    """Jackknife variances ``(F,)`` from figures ``(F, n)`` with one of n left out."""
    n = without.shape[1]
    off = without - without.mean(axis=1, keepdims=True)
    return np.asarray((n - 1) / n * (off**2).sum(axis=1))


def _alike(parts: Sequence[_Part]) -> list[_Part]:
    """The variance between subjects, spread over strata as if all subjects varied alike.

    Only over strata that vary at all: no healthy subject changes a sensitivity.
    """
    seeds = [part for part in parts if not part.subjects]
    strata = [part for part in parts if part.subjects]
    total = np.asarray(sum(part.variance for part in strata))
    shares = [(part.variance > _NOTHING * total) / part.subjects for part in strata]
    whole = np.maximum(sum(shares), np.finfo(np.float64).tiny)
    alike = [
        part._replace(variance=total * share / whole)
        for part, share in zip(strata, shares, strict=True)
    ]
    return alike + seeds


def _freedom(parts: Sequence[_Part], figures: int) -> Floats:
    """Degrees of freedom ``(F,)`` of a sum of variances; 1 for a figure that does not vary."""
    total = sum((part.variance for part in parts), np.zeros(figures))
    varies = total > 0
    # Shares first: the square of a perfect model's variance, such as 1e-170, is 0.
    terms = [(p.variance[varies] / total[varies]) ** 2 / p.freedom[varies] for p in parts]
    found = np.ones(figures)
    found[varies] = 1 / sum(terms, np.zeros(int(varies.sum())))
    return found
