"""Confidence intervals and standard errors from resampled patients.

Images of a patient are alike, so patients are resampled, within strata by the classes of their
images. Folds have different patients; the runs of a fold differ by their seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, stdtrit

from leuk.data.labels import Label
from leuk.data.splits import effective_number
from leuk.metrics.arrays import Floats, Integers
from leuk.metrics.classification import Named, Sample, Thresholds

FEW = 6
"""Effective number of patients of a class below which intervals carry a warning."""

_ROUNDING = 1e-12
"""Standard error below which a value counts as exact, and share of the variance below which that of
a stratum is rounding error."""

Run = TypeVar("Run")


@dataclass(frozen=True)
class Fold(Generic[Run]):
    """Set of test images of S patients."""

    runs: Sequence[Run]  # results on these images, one per seed
    strata: Sequence[Integers]  # numbers of the patients who are resampled among themselves
    images: Integers  # (S,) images per patient


@dataclass(frozen=True)
class Estimate:
    """A metric with its standard error.

    Attributes:
        value: value on all patients.
        error: standard error: that of the bootstrap or of the jackknife, whichever is larger.
            Bootstrap draws rarely leave out a patient with most of the images, so that its
            difference from the others hardly shows; the jackknife leaves out each patient
            (MacKinnon, Nielsen & Webb 2023, *Journal of Applied Econometrics* 38).
        freedom: degrees of freedom of that error, the smaller of two. The first follows from the
            variances of each class and between seeds (Satterthwaite 1946). The second distributes
            the variance between patients as if all patients varied alike (Imbens & Kolesar 2016,
            *Review of Economics and Statistics* 98(4), section 3): if three healthy patients happen
            to be alike, the first would equal that of the leukemic patients. The degrees of freedom
            of a class follow from its effective number of patients, since a patient with most of
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
        """Confidence interval of a value with bounds, computed on the log-odds of its position.

        At a bound all patients agree and no spread can be estimated. Every patient then counts as a
        single observation, the worst case of images that are alike, and the interval is exact
        (Clopper & Pearson 1934); ``patients`` is their effective number. Both ends are the value if
        it is between the bounds and no draw changes it, as for the AUROC of constant scores.
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


def resamples(
    strata: Sequence[Integers], count: int, draws: int, generator: np.random.Generator
) -> Floats:
    """Draw weights ``(draws, count)`` of a bootstrap of the members of each stratum.

    Of n members, n - 1 are drawn with replacement and weigh n / (n - 1) each: otherwise the
    variance would be n / (n - 1) times too small, which matters for a class with a dozen patients
    (Rao & Wu 1988). A member alone in its stratum always has weight 1.
    """
    weights = np.ones((draws, count))
    for members in strata:
        n = len(members)
        if n > 1:
            drawn = generator.multinomial(n - 1, np.full(n, 1 / n), size=draws)
            weights[:, members] = drawn * (n / (n - 1))
    return weights


def _left_out(members: Integers, count: int) -> Floats:
    """Jackknife weights ``(n, count)``: row i leaves out the i-th of a stratum's n members."""
    n = len(members)
    weights = np.ones((n, count))
    weights[:, members] = n / (n - 1)
    weights[np.arange(n), members] = 0
    return weights


def _jackknife_variances(without: Floats) -> Floats:
    """Variances ``(F,)`` from values ``(F, n)``, each without one of n members."""
    n = without.shape[1]
    off = without - without.mean(axis=1, keepdims=True)
    return np.asarray((n - 1) / n * (off**2).sum(axis=1))


_Component = tuple[Floats, Floats, int]
"""Component of the variance of F metrics, between the patients of a stratum or between seeds:
variance ``(F,)``, its degrees of freedom ``(F,)``, and number of patients, 0 for seeds."""


def estimates(
    folds: Sequence[Fold[Run]],
    metrics: Callable[[Run, Floats], Floats],
    draws: int,
    equal: npt.ArrayLike = False,
    seed: int = 0,
) -> list[Estimate]:
    """Estimate the means of F metrics over runs and folds with disjoint patients.

    ``metrics`` is a function of a run and weights ``(D, S)`` of the patients of its fold that
    returns values ``(F, D)``. ``equal``, ``(F,)`` or one value for all, is True for metrics in
    which all patients weigh the same, however many images they have.
    """
    generator = np.random.default_rng(seed)
    share = 1 / len(folds)
    value: Floats = np.zeros(())
    drawn: Floats = np.zeros(())
    components: list[_Component] = []
    for fold in folds:
        count, runs = len(fold.images), len(fold.runs)
        strata = [members for members in fold.strata if len(members) > 1]
        # All patients, the resamples, and a row for each patient left out.
        rows = [np.ones((1, count)), resamples(strata, count, draws, generator)]
        weights = np.concatenate([*rows, *(_left_out(members, count) for members in strata)])
        of_seeds = resamples([np.arange(runs)], runs, draws, generator)
        found = np.stack([metrics(run, weights) for run in fold.runs])  # (runs, F, D)
        value = value + share * found[..., 0].mean(axis=0)
        spread = found[..., 1 : draws + 1] * of_seeds.T[:, None]
        drawn = drawn + share * spread.mean(axis=0)
        means, at = found.mean(axis=0), draws + 1
        weighed = np.broadcast_to(equal, len(means))
        for members in strata:
            n = len(members)
            effective = max(effective_number(fold.images[members]) - 1, 1)
            freedom = np.where(weighed, n - 1, effective)
            variance = _jackknife_variances(means[:, at : at + n])
            components.append((share**2 * variance, freedom, n))
            at += n
        if runs > 1:
            without = found[..., 0].T @ _left_out(np.arange(runs), runs).T / runs
            variance = _jackknife_variances(without)
            components.append((share**2 * variance, np.full(len(means), runs - 1.0), 0))
    nothing = np.zeros(len(value))
    jackknife = np.sqrt(sum((variance for variance, _, _ in components), nothing))
    error = np.maximum(drawn.std(axis=1, ddof=1), jackknife)
    # The variance between patients, distributed over strata as if all patients varied alike; only
    # over strata that vary at all, since no healthy patient changes a sensitivity.
    between = [component for component in components if component[2]]
    total = sum((variance for variance, _, _ in between), nothing)
    shares = [(variance > _ROUNDING * total) / n for variance, _, n in between]
    whole = np.maximum(sum(shares, nothing), np.finfo(np.float64).tiny)
    alike = [
        (total * one / whole, freedom, n)
        for one, (_, freedom, n) in zip(shares, between, strict=True)
    ]
    alike += [component for component in components if not component[2]]
    freedom = np.minimum(_freedom(components, nothing), _freedom(alike, nothing))
    columns = zip(value, error, freedom, strict=True)
    return [Estimate(*map(float, column)) for column in columns]


def _freedom(components: Sequence[_Component], nothing: Floats) -> Floats:
    """Degrees of freedom ``(F,)`` of a sum of variances; 1 for a metric that does not vary."""
    total = sum((variance for variance, _, _ in components), nothing)
    varies = total > 0
    # Shares avoid underflow: the square of a perfect model's variance, such as 1e-170, is 0.
    terms = [
        (variance[varies] / total[varies]) ** 2 / freedom[varies]
        for variance, freedom, _ in components
    ]
    found = np.ones(len(total))
    found[varies] = 1 / sum(terms, nothing[varies])
    return found


# --- Intervals of all metrics


LEVEL = 0.95
"""Confidence level of the intervals of all metrics."""


def bootstrap_intervals(
    sample: Sample, thresholds: Thresholds, draws: int = 1000
) -> dict[str, tuple[float, float]]:
    """Confidence intervals of all metrics of a run that :func:`fold_mean` gives an interval."""
    return {
        name: (low, high)
        for name, (_, low, high) in fold_mean([(sample, thresholds)], draws).items()
        if low is not None and high is not None
    }


def fold_mean(
    samples: Sequence[tuple[Sample, Thresholds]], draws: int = 1000
) -> dict[str, tuple[float, float | None, float | None]]:
    """Means of all metrics over the folds of runs with the same names of thresholds.

    Samples of the same images are runs of different seeds of a fold: they are averaged within the
    fold, and seeds are resampled too.

    Returns:
        Name to value, lower and upper end; the ends are None for metrics of a class with a single
        patient, who does not show how patients differ.

    Raises:
        ValueError: no sample, or a patient tested in two folds.
    """
    folds, tested = [], []
    for positions in group_by_fold([sample for sample, _ in samples]):
        runs = [sample.reweighted(cuts) for sample, cuts in (samples[i] for i in positions)]
        first = samples[positions[0]][0]
        folds.append(Fold(runs, first.strata, first.images))
        tested.append(first)
    named = folds[0].runs[0].named
    found = estimates(
        folds,
        lambda run, weights: run.metrics(weights, list(named)),
        draws,
        [one.patients for one in named.values()],
    )
    shown = {label for label in Label if all(fold.subjects_of(label) > 1 for fold in tested)}
    intervals: dict[str, tuple[float, float | None, float | None]] = {}
    for (name, one), estimate in zip(named.items(), found, strict=True):
        intervals[name] = estimate.value, None, None
        if set(one.metric.classes) <= shown:
            intervals[name] = estimate.value, *_interval(one, estimate, tested)
    return intervals


def _interval(one: Named, found: Estimate, tested: Sequence[Sample]) -> tuple[float, float]:
    lowest = one.metric.lowest
    if one.metric.absolute:
        low, high = found.interval(LEVEL)
        return max(low, lowest), min(high, 1.0)
    effective = []
    for label in one.metric.classes:
        counts = [
            fold.subjects_of(label) if one.patients else fold.effective_subjects_of(label)
            for fold in tested
        ]
        # The mean over k folds with n patients each, all of equal spread, varies like the mean
        # over k^2 / sum(1 / n) patients.
        effective.append(len(tested) ** 2 / sum(1 / count for count in counts))
    return found.interval_within(LEVEL, lowest, 1.0, min(effective))


def few_subjects(sample: Sample) -> str | None:
    """Return a warning if a class has fewer than six effective patients, else None.

    Three patients with 789, 18 and 18 images are 1.1 effective patients: the first dominates every
    metric that weighs images (:func:`leuk.data.splits.effective_patients`).
    """
    names = {Label.HEM: "healthy", Label.ALL: "leukemic"}
    few = [
        f"{effective:.1f} effective {name} subjects (of {sample.subjects_of(label)})"
        for label, name in names.items()
        if (effective := sample.effective_subjects_of(label)) < FEW
    ]
    if not few:
        return None
    if any(sample.subjects_of(label) == 1 for label in Label):
        return (
            f"only {' and '.join(few)}: a single patient does not show how patients "
            "differ, so metrics of that class have no interval"
        )
    return (
        f"only {' and '.join(few)}: intervals are wide, and assume that these patients are typical"
    )


def group_by_fold(samples: Sequence[Sample]) -> list[list[int]]:
    """Group the positions of samples of the same images, which form a fold, in their order.

    Raises:
        ValueError: no sample, or a patient tested in two folds.
    """
    if not samples:
        raise ValueError("no sample to take the mean of")
    folds: dict[str, list[int]] = {}
    for position, sample in enumerate(samples):
        folds.setdefault(sample.fingerprint, []).append(position)
    seen: set[str] = set()
    for positions in folds.values():
        own = set(samples[positions[0]].subjects.astype(str).tolist())
        if twice := seen & own:
            raise ValueError(
                f"subjects {', '.join(sorted(twice)[:3])} are tested in two folds, or their images "
                "are not in the same order in all runs"
            )
        seen |= own
    return list(folds.values())
