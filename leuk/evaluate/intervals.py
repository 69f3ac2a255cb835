"""Confidence intervals of all metrics, from resampling patients.

Images of the same patient are alike, so a bootstrap over images is far too narrow: with 20 images
per subject its 95 % interval of AUROC covers the true value about half the time. Subjects are
therefore resampled, within each class.

The interval is the value plus and minus t standard errors, on the log-odds of the metric; for the
standard error and the degrees of freedom see :class:`leuk.evaluate.hierarchy.Estimate`. Percentile
and bias-corrected intervals covered less. Coverage of nominal 95 % intervals in 400 simulated test
sets with 12 healthy and 30 leukemic subjects, at an AUROC of 0.82 and of 0.96
(``tests/benchmarks/intervals.py``):

| | AUROC | sensitivity | specificity |
|---|---|---|---|
| percentile, n of n subjects | 0.88-0.91 | 0.92-0.95 | 0.87-0.88 |
| percentile, n - 1 of n, reweighted | 0.89-0.92 | 0.92-0.94 | 0.87-0.90 |
| bias-corrected | 0.90-0.92 | 0.93-0.95 | 0.88-0.89 |
| t, not on log-odds | 0.88-0.93 | 0.93-0.96 | 0.90 |
| t on log-odds (used) | 0.93-0.94 | 0.95-0.97 | 0.93 |

With three healthy subjects percentile intervals cover 0.77-0.81 (AUROC) and 0.70-0.73
(specificity), t on log-odds 0.95 and 0.97-0.98 at two to three times the width (AUROC 0.91-0.93 if
subjects have unequally many images): see :func:`few_subjects`.

The table predates the lower bound on standard errors (the jackknife's) and the upper bound on
degrees of freedom (those of the design). With the image counts of C-NMC's patients or a tenth of
them, AUROCs of 0.82 and 0.96 and 3,000 sets each, the lowest coverage of these four designs, before
and with these bounds:

| | all patients | mean of 3 folds | 3 healthy patients | 4 healthy patients |
|---|---|---|---|---|
| AUROC | 0.93, 0.95 | 0.95, 0.97 | 0.94, 0.99 | 0.96, 0.98 |
| AUROC (patients) | 0.92, 0.93 | 0.94, 0.94 | 0.92, 0.95 | 0.92, 0.93 |
| sensitivity | 0.93, 0.94 | 0.94, 0.96 | 0.92, 0.93 | 0.97, 0.98 |
| specificity | 0.96, 0.96 | 0.98, 0.98 | 0.91, 0.99 | 0.97, 0.98 |
| balanced accuracy | 0.93, 0.95 | 0.95, 0.97 | 0.93, 0.97 | 0.96, 0.98 |
| sensitivity (patients) | 0.93, 0.94 | 0.94, 0.94 | 0.93, 0.93 | 0.93, 0.93 |
| specificity (patients) | 0.93, 0.94 | 0.95, 0.96 | 0.91, 0.96 | 0.92, 0.93 |
| balanced accuracy (patients) | 0.93, 0.94 | 0.93, 0.94 | 0.88, 0.93 | 0.93, 0.94 |
| MCC | 0.96, 0.97 | 0.96, 0.98 | 0.88, 0.99 | 0.98, 0.99 |

The three healthy patients have 789, 18 and 18 images, by image 1.1 effective patients, and the
interval of a single fold is nearly as wide as its range. A class with a single patient has no
interval.

The expected calibration error is the exception: near 0 the log-odds interval would span almost
[0, 1] (constant scores: 0.003 [0.00, 0.92]), so its interval is the value plus and minus t standard
errors, cut at 0. With few patients the error itself is overestimated, so that for a calibrated
model no interval covers the true value.
"""

from collections.abc import Sequence

import numpy as np

from leuk.data.labels import Label
from leuk.evaluate.hierarchy import Bootstrap, Estimate, Fold, group_by_fold
from leuk.evaluate.resampling import PATIENTS
from leuk.evaluate.sample import Sample
from leuk.evaluate.thresholds import Thresholds

__all__ = ["Sample", "bootstrap_intervals", "few_subjects", "fold_mean", "metric_range"]

FEW = 6
"""Effective number of subjects of a class below which intervals carry a warning."""

_CLASSES = {Label.HEM: "healthy", Label.ALL: "leukemic"}


def bootstrap_intervals(
    sample: Sample,
    thresholds: Thresholds,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Confidence intervals of all metrics of :func:`leuk.evaluate.metrics.all_metrics`.

    Args:
        sample: the images of a stage with their scores.
        thresholds: name to threshold.
        draws: bootstrap resamples of the subjects.
        seed: seed of the resamples.
        level: confidence level, in (0, 1).

    Returns:
        Name to lower and upper end. Metrics of a class with a single patient are left out: a
        single patient does not show how patients differ.
    """
    found = _intervals([(sample, thresholds)], draws, seed, level)
    return {name: ends for name, (_, ends) in found.items() if ends}


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
        draws: bootstrap resamples of subjects and seeds.
        seed: seed of the resamples.
        level: confidence level, in (0, 1).

    Returns:
        Name to value, lower and upper end; the ends are None for metrics that
        :func:`bootstrap_intervals` leaves out.

    Raises:
        ValueError: no sample, or a subject tested in two folds.
    """
    found = _intervals(samples, draws, seed, level)
    return {name: (value, *(ends or (None, None))) for name, (value, ends) in found.items()}


def few_subjects(sample: Sample) -> str | None:
    """Return a warning if a class has fewer than six effective subjects, else None.

    Three patients with 789, 18 and 18 images are 1.1 effective patients: the first dominates every
    metric that weighs images (:func:`leuk.data.effective.effective_patients`).

    Args:
        sample: the images of a stage.
    """
    counts = {name: sample.subjects_of(label) for label, name in _CLASSES.items()}
    effective = {name: sample.effective_subjects_of(label) for label, name in _CLASSES.items()}
    few = [
        f"{effective[name]:.1f} effective {name} subjects (of {count})"
        for name, count in counts.items()
        if effective[name] < FEW
    ]
    if not few:
        return None
    if min(counts.values()) == 1:
        return (
            f"only {' and '.join(few)}: a single patient does not show how patients "
            "differ, so metrics of that class have no interval"
        )
    return (
        f"only {' and '.join(few)}: intervals are wide, and assume that these patients are typical"
    )


def metric_range(name: str) -> tuple[float, float]:
    """Smallest and largest possible value of a metric."""
    return (-1.0, 1.0) if name.partition("@")[0] == "mcc" else (0.0, 1.0)


def _interval(name: str, found: Estimate, level: float, patients: float) -> tuple[float, float]:
    lowest, highest = metric_range(name)
    if name.startswith("ece"):
        # Absolute values fold at 0, near which log-odds would stretch the interval to [0, 1].
        low, high = found.interval(level)
        return max(low, lowest), min(high, highest)
    return found.interval_within(level, lowest, highest, patients)


def _intervals(
    samples: Sequence[tuple[Sample, Thresholds]], draws: int, seed: int, level: float
) -> dict[str, tuple[float, tuple[float, float] | None]]:
    """Mean over folds of every metric, and its interval or None."""
    folds, tested = [], []
    for positions in group_by_fold([sample for sample, _ in samples]):
        runs = [sample.reweighted(cuts) for sample, cuts in (samples[i] for i in positions)]
        first = samples[positions[0]][0]
        folds.append(Fold(runs, first.strata, first.images.size, first.images))
        tested.append(first)
    bootstrap = Bootstrap(folds, draws, seed)
    names = folds[0].runs[0].names
    equal = np.isin(names, folds[0].runs[0].patient_names)
    found = bootstrap.estimates(lambda run, weights: run.metrics(weights, names), equal)
    effective = {
        (label, same): _effective(tested, label, same) for label in Label for same in (False, True)
    }
    # A single patient does not show how patients differ.
    shown = [label for label in Label if all(fold.subjects_of(label) > 1 for fold in tested)]
    intervals: dict[str, tuple[float, tuple[float, float] | None]] = {}
    for name, estimate, same in zip(names, found, equal, strict=True):
        classes = _classes_of(name)
        ends = None
        if set(classes) <= set(shown):
            patients = min(effective[label, bool(same)] for label in classes)
            ends = _interval(name, estimate, level, patients)
        intervals[name] = estimate.value, ends
    return intervals


def _classes_of(name: str) -> tuple[Label, ...]:
    """Classes whose images a metric depends on."""
    base = name.partition("@")[0].removesuffix(PATIENTS)
    if base in ("sensitivity", "recall_all"):
        return (Label.ALL,)
    if base in ("specificity", "recall_hem"):
        return (Label.HEM,)
    return tuple(Label)


def _effective(tested: Sequence[Sample], label: Label, equal: bool) -> float:
    """Effective number of patients behind a mean over folds.

    The mean over k folds with n patients each, all of equal spread, varies like the mean over
    k^2 / sum(1 / n) patients.
    """
    counts = [
        fold.subjects_of(label) if equal else fold.effective_subjects_of(label) for fold in tested
    ]
    return len(tested) ** 2 / sum(1 / count for count in counts)
