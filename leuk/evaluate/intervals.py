"""Intervals of every figure, from resampling persons.

Cells of one person are alike, so that a bootstrap over cells promises far more than it knows: with
20 cells a subject its 95 % interval of AUROC holds the truth about half the time. Subjects are
resampled here, those of each class among themselves.

The interval is t standard errors either way on the log-odds of the figure; for the standard error
and the degrees of freedom see :class:`leuk.evaluate.hierarchy.Estimate`. Percentile and
bias-corrected intervals were tried and lost. In 400 simulated test sets with 12 healthy and 30
leukemic subjects, a nominal 95 % interval held the true value this often, with an AUROC of 0.82 and
of 0.96 (``tests/benchmarks/intervals.py``):

| | AUROC | sensitivity | specificity |
|---|---|---|---|
| percentile, n of n subjects | 0.88-0.91 | 0.92-0.95 | 0.87-0.88 |
| percentile, n - 1 of n, reweighted | 0.89-0.92 | 0.92-0.94 | 0.87-0.90 |
| bias-corrected | 0.90-0.92 | 0.93-0.95 | 0.88-0.89 |
| t, not on log-odds | 0.88-0.93 | 0.93-0.96 | 0.90 |
| t on log-odds (used) | 0.93-0.94 | 0.95-0.97 | 0.93 |

With three healthy subjects percentiles hold 0.77-0.81 (AUROC) and 0.70-0.73 (specificity), t on
log-odds 0.95 and 0.97-0.98 at two to three times the width (AUROC 0.91-0.93 where subjects have
unequally many cells): see :func:`few_subjects`.

The table is from before errors were at least the jackknife's and freedom at most that of the
design. With the image counts of C-NMC's patients, and a tenth of them, 3,000 sets each, AUROCs of
0.82 and 0.96, the lowest coverage over these four was, before and now:

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

The three healthy patients have 789, 18 and 18 images. By image they are 1.1 effective ones and the
interval of a single fold says next to nothing; it is there to be seen. A class with one patient has
no interval.

The expected calibration error is the exception: it lies near 0, where log-odds reach from 0 to 1
(constant scores, 0.003 [0.00, 0.92]), and its interval is t standard errors either way, cut at 0.
Of few persons it comes out too large, so that of a calibrated model no interval reaches the truth.
"""

from collections.abc import Sequence

import numpy as np

from leuk.data.labels import Label
from leuk.evaluate.hierarchy import Bootstrap, Estimate, Fold, folds_of
from leuk.evaluate.resampling import PATIENTS
from leuk.evaluate.sample import Sample
from leuk.evaluate.thresholds import Thresholds

__all__ = ["Sample", "bootstrap_intervals", "few_subjects", "fold_mean", "range_of"]

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
    """Interval of every figure of :func:`leuk.evaluate.metrics.all_metrics` on one sample.

    Args:
        sample: the cells of one part.
        thresholds: name to threshold.
        draws: resamples of the subjects.
        seed: of the resamples.
        level: share of test sets whose interval should hold the true figure.

    Returns:
        Name to lower and upper end. Left out is a metric of a class with a single patient: one
        does not show how patients differ, so that no interval is honest.
    """
    found = _intervals([(sample, thresholds)], draws, seed, level)
    return {name: ends for name, (_, ends) in found.items() if ends}


def fold_mean(
    samples: Sequence[tuple[Sample, Thresholds]],
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float | None, float | None]]:
    """Mean over folds of each fold's figures, with intervals.

    Samples of the same cells are runs of other seeds; their mean stands for the fold, and seeds
    are resampled too.

    Args:
        samples: of each run its test cells and its own thresholds, of the same names in all.
        draws: resamples.
        seed: of the resamples.
        level: share of experiments whose interval should hold the true figure.

    Returns:
        Name to value, lower and upper end; None for the ends where :func:`bootstrap_intervals` has
        no interval.

    Raises:
        ValueError: no sample, or a subject that is tested in two folds.
    """
    found = _intervals(samples, draws, seed, level)
    return {name: (value, *(ends or (None, None))) for name, (value, ends) in found.items()}


def few_subjects(sample: Sample) -> str | None:
    """Warning about intervals where a class has fewer than six effective subjects, else None.

    Three patients with 789, 18 and 18 images are 1.1 effective ones: the first decides any metric
    that weighs images (:func:`leuk.data.effective.effective_patients`).

    Args:
        sample: the cells of one part.
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
            f"only {' and '.join(few)}: one patient does not show how patients differ, so there "
            "is no interval of a metric that rests on that class"
        )
    return (
        f"only {' and '.join(few)}: intervals are wide, and rest on the assumption that these "
        "patients are like others"
    )


def range_of(name: str) -> tuple[float, float]:
    """The bounds that a figure cannot pass."""
    return (-1.0, 1.0) if name.partition("@")[0] == "mcc" else (0.0, 1.0)


def _interval(name: str, found: Estimate, level: float, patients: float) -> tuple[float, float]:
    lowest, highest = range_of(name)
    if name.startswith("ece"):
        # Absolute values fold at 0: log-odds would stretch a small one's interval over all there is
        low, high = found.interval(level)
        return max(low, lowest), min(high, highest)
    return found.interval_within(level, lowest, highest, patients)


def _intervals(
    samples: Sequence[tuple[Sample, Thresholds]], draws: int, seed: int, level: float
) -> dict[str, tuple[float, tuple[float, float] | None]]:
    """Value and interval of every metric, the mean over folds; None where there is none."""
    folds, tested = [], []
    for positions in folds_of([sample for sample, _ in samples]):
        runs = [sample.reweighted(cuts) for sample, cuts in (samples[place] for place in positions)]
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
    # One patient does not show how patients differ.
    shown = [label for label in Label if all(one.subjects_of(label) > 1 for one in tested)]
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
    """The classes whose images a metric depends on."""
    base = name.partition("@")[0].removesuffix(PATIENTS)
    if base in ("sensitivity", "recall_all"):
        return (Label.ALL,)
    if base in ("specificity", "recall_hem"):
        return (Label.HEM,)
    return tuple(Label)


def _effective(tested: Sequence[Sample], label: Label, equal: bool) -> float:
    """Effective number of patients behind a mean over folds.

    Of folds with n patients each of equal spread the mean varies as that of k^2 / sum(1 / n).
    """
    counts = [
        one.subjects_of(label) if equal else one.effective_subjects_of(label) for one in tested
    ]
    return len(tested) ** 2 / sum(1 / count for count in counts)
