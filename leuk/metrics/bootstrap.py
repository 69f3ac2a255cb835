"""Confidence intervals and standard errors from resampled patients.

Images of a patient are alike, so patients are resampled, within strata by the classes of their
images. Folds have different patients; the runs of a fold differ by their seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit, stdtrit

from leuk.data.labels import Label
from leuk.data.splits import effective_number
from leuk.metrics.arrays import Flags, Floats, Integers, as_scores_and_labels
from leuk.metrics.classification import DEFAULT, Named, Reweighted, Thresholds
from leuk.store import digest

FEW = 6
"""Effective number of patients of a class below which intervals carry a warning."""

_ROUNDING = 1e-12
"""Standard error below which a value counts as exact, and share of the variance below which that of
a stratum is rounding error."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Images of a stage with the scores of a model.

    Attributes:
        scores: ``float64 (N,)`` probability of leukemia, in [0, 1].
        labels: ``int64 (N,)``, 1 = leukemic; both classes present.
        subjects: ``(N,)`` the patient of each image; linked subjects share a name.
        calibrated: ``float64 (N,)`` scores after temperature scaling; None without calibration.

    Raises:
        ValueError: columns of different lengths, a single class, or scores outside [0, 1].
    """

    scores: Floats
    labels: Integers
    subjects: npt.NDArray[np.generic]
    calibrated: Floats | None = None

    def __post_init__(self) -> None:
        for scores in (self.scores, self.calibrated):
            if scores is not None:
                as_scores_and_labels(scores, self.labels)
        if self.subjects.shape != self.labels.shape:
            raise ValueError(f"{len(self.labels)} images but {len(self.subjects)} subjects")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of labels and subjects, equal for samples of the same images in the same order."""
        return digest([self.labels.tolist(), self.subjects.astype(str).tolist()])

    @cached_property
    def codes(self) -> Integers:
        """``(N,)`` number of each image's subject, from 0."""
        return np.unique(self.subjects.astype(str), return_inverse=True)[1]

    @cached_property
    def images(self) -> Integers:
        """``(S,)`` images per subject, in the order of their numbers."""
        return np.bincount(self.codes)

    @cached_property
    def strata(self) -> list[Integers]:
        """Numbers of the subjects with only healthy, only leukemic, and both kinds of images."""
        classes = np.zeros(int(self.codes.max()) + 1, np.int64)
        for label in Label:
            classes[np.unique(self.codes[self.labels == label])] |= 1 << label
        return [np.flatnonzero(classes == kind) for kind in (1, 2, 3) if (classes == kind).any()]

    @cached_property
    def at_half(self) -> Reweighted:
        """Metrics for any weights of the subjects, decided at 0.5; cached for frequent use."""
        return self.reweighted({DEFAULT: 0.5})

    def reweighted(self, thresholds: Thresholds) -> Reweighted:
        """Metrics for any weights of the subjects, decided at these thresholds."""
        decided = self.decided(thresholds)
        return Reweighted(self.scores, self.labels, self.codes, decided, self.calibrated)

    def subjects_of(self, label: Label) -> int:
        """Count the subjects with images of a class."""
        return len(np.unique(self.codes[self.labels == label]))

    def effective_subjects_of(self, label: Label) -> float:
        """Effective number of subjects with images of a class."""
        return effective_number(np.bincount(self.codes[self.labels == label]))

    def decided(self, thresholds: Thresholds) -> dict[str, Flags]:
        """Threshold name to ``(N,)`` True for images called leukemic."""
        return {name: self.scores >= threshold for name, threshold in thresholds.items()}


def per_subject(sample: Sample, threshold: float) -> pd.DataFrame:
    """Tabulate results per subject and class.

    Args:
        sample: the images of a stage.
        threshold: images with at least this score are called leukemic.

    Returns:
        Columns ``subject``, ``label``, ``images`` (number), ``correct`` (share of correct
        decisions) and ``score`` (mean), ordered by label and subject; two rows for a subject with
        images of both classes.
    """
    right = (sample.scores >= threshold) == (sample.labels == 1)
    names, codes = np.unique(sample.subjects.astype(str), return_inverse=True)
    pairs, rows = np.unique(sample.labels * len(names) + codes, return_inverse=True)
    images = np.bincount(rows)
    return pd.DataFrame(
        {
            "subject": names[pairs % len(names)],
            "label": pairs // len(names),
            "images": images,
            "correct": np.bincount(rows, right) / images,
            "score": np.bincount(rows, sample.scores) / images,
        }
    )


# --- Resampling


def resamples(
    strata: Sequence[Integers], count: int, draws: int, generator: np.random.Generator
) -> Floats:
    """Draw weights ``(draws, count)`` of a bootstrap of the members of each stratum.

    Of n members, n - 1 are drawn with replacement and weigh n / (n - 1) each: otherwise the
    variance would be n / (n - 1) times too small, which matters for a class with a dozen subjects
    (Rao & Wu 1988). A member alone in its stratum always has weight 1.
    """
    weights = np.ones((draws, count))
    for members in strata:
        n = len(members)
        if n > 1:
            drawn = generator.multinomial(n - 1, np.full(n, 1 / n), size=draws)
            weights[:, members] = drawn * (n / (n - 1))
    return weights


def left_out(members: Integers, count: int) -> Floats:
    """Jackknife weights ``(n, count)``: row i leaves out the i-th of a stratum's n members."""
    n = len(members)
    weights = np.ones((n, count))
    weights[:, members] = n / (n - 1)
    weights[np.arange(n), members] = 0
    return weights


# --- Means over folds, with patients and seeds nested in folds

Run = TypeVar("Run")


@dataclass(frozen=True)
class Fold(Generic[Run]):
    """Set of test images.

    Attributes:
        runs: results on these images, one per seed.
        strata: numbers of the patients of each stratum, which are resampled among themselves.
        count: number of patients.
        images: ``(count,)`` images per patient; equally many if None.
    """

    runs: Sequence[Run]
    strata: Sequence[Integers]
    count: int
    images: Integers | None = None

    def effective(self, members: Integers) -> float:
        """Effective number of patients in a stratum, by their images."""
        if self.images is None:
            return float(len(members))
        return effective_number(self.images[members])


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
    """Variance component of each of F metrics: between a stratum's patients, or between seeds.

    Attributes:
        variance: ``(F,)`` the variance.
        freedom: ``(F,)`` its degrees of freedom.
        patients: number of patients; 0 for the seeds.
    """

    variance: Floats
    freedom: Floats
    patients: int


class Bootstrap(Generic[Run]):
    """Resamples of folds, shared by all metrics of their runs.

    Args:
        folds: folds with disjoint patients.
        draws: number of resamples.
        seed: seed of the resamples.
    """

    def __init__(self, folds: Sequence[Fold[Run]], draws: int, seed: int) -> None:
        self.folds, self._draws = folds, draws
        generator = np.random.default_rng(seed)
        # Weights of the patients of each fold (all once, the resamples, and a row per left-out
        # patient), and of its seeds.
        self._weights: list[tuple[Floats, Floats]] = []
        for fold in folds:
            rows = [np.ones((1, fold.count)), resamples(fold.strata, fold.count, draws, generator)]
            rows += [left_out(members, fold.count) for members in fold.strata if len(members) > 1]
            runs = len(fold.runs)
            seeds = resamples([np.arange(runs)], runs, draws, generator)
            self._weights.append((np.concatenate(rows), seeds))

    def estimates(
        self, metrics: Callable[[Run, Floats], Floats], equal: Flags | None = None
    ) -> list[Estimate]:
        """Estimate the means of several metrics over runs and folds.

        Args:
            metrics: function of a run and weights ``(D, S)`` of the patients of its fold that
                returns values ``(F, D)``.
            equal: ``(F,)`` True for metrics in which all patients weigh the same, however many
                images they have; False for all if None.
        """
        share = 1 / len(self.folds)
        values: Floats = np.zeros(())
        drawn: Floats = np.zeros(())
        components: list[_Component] = []
        for fold, (patients, seeds) in zip(self.folds, self._weights, strict=True):
            found = np.stack([metrics(run, patients) for run in fold.runs])
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
        for members in fold.strata:
            n = len(members)
            if n > 1:
                freedom = np.where(weighed, n - 1, max(fold.effective(members) - 1, 1))
                components.append(_Component(_variances(means[:, at : at + n]), freedom, n))
                at += n
        runs = len(fold.runs)
        if runs > 1:
            variances = _variances(found[..., 0].T @ left_out(np.arange(runs), runs).T / runs)
            components.append(_Component(variances, np.full(len(means), runs - 1.0), 0))
        return components


def _variances(without: Floats) -> Floats:
    """Jackknife variances ``(F,)`` from values ``(F, n)``, each leaving out one of n members."""
    n = without.shape[1]
    off = without - without.mean(axis=1, keepdims=True)
    return np.asarray((n - 1) / n * (off**2).sum(axis=1))


def _alike(components: Sequence[_Component]) -> list[_Component]:
    """Distribute the variance between patients over strata as if all patients varied alike.

    Only over strata that vary at all: no healthy patient changes a sensitivity.
    """
    strata = [component for component in components if component.patients]
    total = np.asarray(sum(stratum.variance for stratum in strata))
    shares = [(stratum.variance > _ROUNDING * total) / stratum.patients for stratum in strata]
    whole = np.maximum(sum(shares), np.finfo(np.float64).tiny)
    alike = [
        stratum._replace(variance=total * share / whole)
        for stratum, share in zip(strata, shares, strict=True)
    ]
    return alike + [component for component in components if not component.patients]


def _freedom(components: Sequence[_Component], count: int) -> Floats:
    """Degrees of freedom ``(F,)`` of a sum of variances; 1 for a metric that does not vary."""
    total = sum((component.variance for component in components), np.zeros(count))
    varies = total > 0
    # Shares avoid underflow: the square of a perfect model's variance, such as 1e-170, is 0.
    terms = [(p.variance[varies] / total[varies]) ** 2 / p.freedom[varies] for p in components]
    found = np.ones(count)
    found[varies] = 1 / sum(terms, np.zeros(int(varies.sum())))
    return found


# --- Intervals of all metrics


def bootstrap_intervals(
    sample: Sample,
    thresholds: Thresholds,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Confidence intervals of all metrics of a run, see :func:`fold_mean`.

    Returns:
        Name to lower and upper end. Metrics of a class with a single patient are left out: a
        single patient does not show how patients differ.
    """
    found = fold_mean([(sample, thresholds)], draws, seed, level)
    return {
        name: (low, high)
        for name, (_, low, high) in found.items()
        if low is not None and high is not None
    }


def fold_mean(
    samples: Sequence[tuple[Sample, Thresholds]],
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float | None, float | None]]:
    """Means of all metrics over folds, with confidence intervals.

    Samples of the same images are runs of different seeds of a fold: they are averaged within the
    fold, and seeds are resampled too.

    Args:
        samples: test images and thresholds of each run, with the same names of thresholds in all.
        draws: bootstrap resamples of patients and seeds.
        seed: seed of the resamples.
        level: confidence level, in (0, 1).

    Returns:
        Name to value, lower and upper end; the ends are None for metrics that
        :func:`bootstrap_intervals` leaves out.

    Raises:
        ValueError: no sample, or a patient tested in two folds.
    """
    folds, tested = [], []
    for positions in group_by_fold([sample for sample, _ in samples]):
        runs = [sample.reweighted(cuts) for sample, cuts in (samples[i] for i in positions)]
        first = samples[positions[0]][0]
        folds.append(Fold(runs, first.strata, first.images.size, first.images))
        tested.append(first)
    named = folds[0].runs[0].named
    estimates = Bootstrap(folds, draws, seed).estimates(
        lambda run, weights: run.metrics(weights, list(named)),
        np.array([one.patients for one in named.values()]),
    )
    # A single patient does not show how patients differ.
    shown = [label for label in Label if all(fold.subjects_of(label) > 1 for fold in tested)]
    intervals: dict[str, tuple[float, float | None, float | None]] = {}
    for (name, one), estimate in zip(named.items(), estimates, strict=True):
        intervals[name] = estimate.value, None, None
        if set(one.metric.classes) <= set(shown):
            intervals[name] = estimate.value, *_interval(one, estimate, level, tested)
    return intervals


def _interval(
    one: Named, found: Estimate, level: float, tested: Sequence[Sample]
) -> tuple[float, float]:
    lowest = one.metric.lowest
    if one.metric.absolute:
        low, high = found.interval(level)
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
    return found.interval_within(level, lowest, 1.0, min(effective))


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
