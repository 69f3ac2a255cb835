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
from typing import Generic, TypeVar

import numpy as np
from scipy.special import expit, logit, stdtrit

from leuk.data.effective import effective_number
from leuk.evaluate.resampling import left_out, resamples
from leuk.evaluate.sample import Sample
from leuk.evaluate.vectors import Flags, Floats, Integers

Run = TypeVar("Run")

_ROUNDING = 1e-12
"""A smaller standard error is none."""


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
        error: standard error, the spread of the bootstrap draws.
        freedom: degrees of freedom of that error (Satterthwaite 1946): about the effective number
            of subjects of the class with the most variance, or of seeds. A subject with most images
            decides the error as much as the value, so that the count of subjects promises too much
            (Carter, Schnepel & Steigerwald 2017).
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

    def interval_within(self, level: float, lowest: float, highest: float) -> tuple[float, float]:
        """The same on the log-odds of where the value lies between two bounds it cannot pass.

        At a bound, where every draw is the same, the interval has no width.
        """
        share = (self.value - lowest) / (highest - lowest)
        if not 0 < share < 1 or self.error < _ROUNDING:
            return self.value, self.value
        slope = 1 / ((highest - lowest) * share * (1 - share))
        half = self.quantile((1 + level) / 2) * self.error * slope
        low, high = expit(logit(share) + np.array([-half, half])) * (highest - lowest) + lowest
        return float(low), float(high)


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
        parts: list[tuple[Floats, Floats]] = []
        for fold, (subjects, seeds) in zip(self.folds, self._weights, strict=True):
            found = np.stack([figures(run, subjects) for run in fold.runs])
            values = values + share * found[..., 0].mean(axis=0)
            spread = found[..., 1 : self._draws + 1] * seeds.T[:, None]
            drawn = drawn + share * spread.mean(axis=0)
            parts += [(share**2 * v, n) for v, n in self._jackknifed(fold, found, equal)]
        columns = zip(values, drawn.std(axis=1, ddof=1), _freedom(parts, len(values)), strict=True)
        return [Estimate(*map(float, column)) for column in columns]

    def estimate(self, figure: Callable[[Run, Floats], Floats], equal: bool = False) -> Estimate:
        """The same of one figure: from a run and weights ``(D, S)`` to ``(D,)``."""
        return self.estimates(lambda run, weights: figure(run, weights)[None], np.array([equal]))[0]

    def _jackknifed(
        self, fold: Fold[Run], found: Floats, equal: Flags | None
    ) -> list[tuple[Floats, Floats]]:
        """Variances ``(F,)`` of each stratum and of the seeds, and their degrees of freedom."""
        means, at = found.mean(axis=0), 1 + self._draws
        weighed = np.zeros(len(means), bool) if equal is None else equal
        parts = []
        for members in _several(fold.strata):
            n = len(members)
            freedom = np.where(weighed, n - 1, max(fold.effective(members) - 1, 1))
            parts.append((_variances(means[:, at : at + n]), freedom))
            at += n
        runs = len(fold.runs)
        if runs > 1:
            variances = _variances(found[..., 0].T @ left_out(np.arange(runs), runs).T / runs)
            parts.append((variances, np.full(len(means), runs - 1.0)))
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
            if samples[fold[0]].cells == sample.cells:
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


def _freedom(parts: Sequence[tuple[Floats, Floats]], figures: int) -> Floats:
    """``(F,)``; 1 for a figure that does not vary."""
    total = sum((variances for variances, _ in parts), np.zeros(figures))
    varies = total > 0
    # Shares first: the square of a perfect model's variance, such as 1e-170, is 0.
    terms = [(v[varies] / total[varies]) ** 2 / freedom[varies] for v, freedom in parts]
    found = np.ones(figures)
    found[varies] = 1 / sum(terms, np.zeros(int(varies.sum())))
    return found
