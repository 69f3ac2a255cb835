"""Images with scores, and all classification metrics; 1 = leukemic = positive.

A metric is a function of weights of the patients, for many weightings at once: weights of 1 give
its value, resampled weights its interval, and weights that swap two models its p value. To add one,
write the function and list it in :data:`METRICS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from leuk.data.labels import Label
from leuk.data.splits import effective_number
from leuk.metrics.arrays import Flags, Floats, Integers, Vector, as_scores_and_labels
from leuk.metrics.calibration import ECE_BINS, bin_index
from leuk.store import digest

DEFAULT = "default"
"""Name of the threshold whose metrics have no suffix."""

PATIENTS = "_patients"
"""Suffix of metrics in which every patient of a class weighs the same; precedes a threshold's."""

CALIBRATED = "_calibrated"
"""Suffix of metrics of scores after temperature scaling."""

Thresholds = Mapping[str, float]
"""Name to threshold; an image is called leukemic if its score is at least the threshold."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Table of N images of S patients with the scores of a model.

    Raises:
        ValueError: columns of different lengths, a single class, or scores outside [0, 1].
    """

    scores: Floats  # (N,) probability of leukemia
    labels: Integers  # (N,), 1 = leukemic; both classes present
    subjects: npt.NDArray[np.generic]  # (N,) patients; linked subjects share a name
    calibrated: Floats | None = None  # (N,) scores after temperature scaling

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
        """``(N,)`` number of each image's patient, from 0."""
        return np.unique(self.subjects.astype(str), return_inverse=True)[1]

    @cached_property
    def images(self) -> Integers:
        """``(S,)`` images of each patient."""
        return np.bincount(self.codes)

    def images_of(self, label: Label) -> Integers:
        """``(S,)`` images of a class of each patient."""
        return np.bincount(self.codes[self.labels == label], minlength=len(self.images))

    @cached_property
    def strata(self) -> list[Integers]:
        """Numbers of the patients with only healthy, only leukemic, and both kinds of images."""
        hem, leukemic = (self.images_of(label) > 0 for label in (Label.HEM, Label.ALL))
        strata = (hem & ~leukemic, leukemic & ~hem, hem & leukemic)
        return [np.flatnonzero(stratum) for stratum in strata if stratum.any()]

    @cached_property
    def at_half(self) -> "Reweighted":
        """Metrics for any weights of the patients, decided at 0.5."""
        return self.reweighted({DEFAULT: 0.5})

    def reweighted(self, thresholds: Thresholds) -> "Reweighted":
        """Metrics for any weights of the patients, decided at these thresholds."""
        return Reweighted(self, thresholds)

    def subjects_of(self, label: Label) -> int:
        """Count the patients with images of a class."""
        return int((self.images_of(label) > 0).sum())

    def effective_subjects_of(self, label: Label) -> float:
        """Effective number of patients with images of a class."""
        return effective_number(self.images_of(label))


def per_subject(sample: Sample, threshold: float) -> pd.DataFrame:
    """Tabulate the images of each patient and class, ordered by label and patient.

    Columns are ``subject``, ``label``, ``images`` (number), ``correct`` (share of correct decisions
    at the threshold) and ``score`` (mean).
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


@dataclass(frozen=True)
class Metric:
    """Definition of a metric.

    The arguments of ``weighted``, which returns values ``(D,)`` for D weightings, depend on the
    kind. ``decision``: weighted true positives, false positives, false negatives and true negatives
    ``(D,)``, at each threshold. ``probability``: a :class:`Reweighted`, the weights ``(D, S)`` of
    its patients, and scores ``(N,)``, before and after calibration. ``ranking``: a
    :class:`Reweighted`, the weights, and True to weigh the patients of a class the same.
    """

    title: str  # in tables
    weighted: Callable[..., Floats]
    kind: str = "decision"
    classes: tuple[Label, ...] = tuple(Label)  # whose images it depends on
    lowest: float = 0.0  # possible value; the highest is 1
    patients: bool = False  # also with equal weight for every patient of a class
    # A mean of absolute values folds at 0: near it, an interval on log-odds would reach 1.
    absolute: bool = False
    # Function of decisions or scores, and labels, that gives the plain value instead of
    # ``weighted``: it differs in the last digits only, and keeps those of older records.
    library: Callable[[npt.NDArray[Any], Integers], float] | None = None


class Named(NamedTuple):
    """Metric of a full name such as ``sensitivity_patients@youden``."""

    metric: Metric
    at: str  # threshold of a decision; suffix of the scores of a probability metric
    patients: bool  # every patient of a class weighs the same


class Reweighted:
    """Metrics of a sample decided at thresholds, for any weights of its patients.

    A weight of 2 counts every image of the patient twice, a weight of 0 leaves them out. Both
    classes need a patient with a positive weight. Metrics whose name has the suffix
    :data:`PATIENTS` weigh each image by 1 / (the patient's images of that class), so that every
    patient of a class weighs the same. A threshold may differ by image, ``(N,)``; ``named`` holds
    the definition of each metric by its full name, and ``count`` is S.
    """

    def __init__(self, sample: Sample, thresholds: Mapping[str, float | Floats]) -> None:
        self.scores, self.labels = sample.scores, sample.labels.astype(bool)
        self.codes, self.count = sample.codes, len(sample.images)
        self._decided = {cut: sample.scores >= at for cut, at in thresholds.items()}
        self._probabilities = {"": sample.scores}
        if sample.calibrated is not None:
            self._probabilities[CALIBRATED] = sample.calibrated
        endings: dict[str, dict[str, str]] = {
            "ranking": {"": ""},
            "probability": {end: end for end in self._probabilities},
            "decision": {cut: "" if cut == DEFAULT else f"@{cut}" for cut in thresholds},
        }
        self.named = {
            f"{name}{PATIENTS if patients else ''}{end}": Named(metric, at, patients)
            for patients in (False, True)
            for kind, ends in endings.items()
            for at, end in ends.items()
            for name, metric in METRICS.items()
            if metric.kind == kind and (metric.patients or not patients)
        }

    def find(self, name: str) -> Named:
        """Return the definition of a metric.

        Raises:
            ValueError: a name that is not among :attr:`named`.
        """
        if name not in self.named:
            raise ValueError(f"no metric {name}; choose from {', '.join(self.named)}")
        return self.named[name]

    def metric(self, name: str, weights: Floats) -> Floats:
        """Compute a metric ``(D,)`` for weights ``(D, S)``; for errors see :meth:`find`."""
        return np.asarray(self.metrics(weights, [name])[0])

    def metrics(self, weights: Floats, names: Sequence[str]) -> Floats:
        """Compute metrics ``(F, D)`` for weights ``(D, S)``; for errors see :meth:`find`."""
        counts: dict[bool, Floats] = {}
        values: list[Floats] = []
        for name in names:
            metric, at, patients = self.find(name)
            if metric.kind == "ranking":
                values.append(metric.weighted(self, weights, patients))
            elif metric.kind == "probability":
                values.append(metric.weighted(self, weights, self._probabilities[at]))
            else:
                if patients not in counts:
                    counts[patients] = self._decisions(patients) @ weights.T
                cut = list(self._decided).index(at)
                values.append(metric.weighted(*counts[patients][:, cut]))
        return np.stack(values)

    def value(self, name: str) -> float:
        """Compute the plain value of a metric, for weights of 1."""
        metric, at, patients = self.find(name)
        if metric.library is None or patients:
            return float(self.metric(name, np.ones((1, self.count)))[0])
        given = self._decided if metric.kind == "decision" else self._probabilities
        return metric.library(given[at], self.labels.astype(np.int64))

    def sums(self, values: npt.NDArray[np.generic]) -> Floats:
        """Sum of ``values`` ``(N,)`` over the images of each patient ``(S,)``."""
        sums = np.bincount(self.codes, values.astype(np.float64), self.count)
        return sums.astype(np.float64)

    @cached_property
    def of_class(self) -> tuple[Floats, Floats]:
        """Numbers of leukemic and healthy images of each patient, ``(S,)``."""
        return self.sums(self.labels), self.sums(~self.labels)

    @cached_property
    def won(self) -> Floats:
        """Pairs in the right order ``(S, S)``, see :func:`pairs_won`."""
        return pairs_won(self.scores, self.labels, self.codes, self.count)

    def _decisions(self, patients: bool) -> Floats:
        """Count true and false positives, false and true negatives by patient, ``(4, cuts, S)``."""
        each = np.ones(len(self.labels))
        if patients:
            leukemic, healthy = (counts[self.codes] for counts in self.of_class)
            each = 1 / np.where(self.labels, leukemic, healthy)
        called, labels = np.stack(list(self._decided.values())), self.labels
        kinds = (called & labels, called & ~labels, ~called & labels, ~called & ~labels)
        return np.stack([[self.sums(flags * each) for flags in kind] for kind in kinds])


def pairs_won(scores: Floats, labels: Flags, codes: Integers, count: int) -> Floats:
    """Count the pairs in which a patient's leukemic images outscore another's healthy images.

    AUROC is the share of such pairs, so these counts ``(S, S)`` give it for any weights of the
    patients. Rows are patients of leukemic images, columns of healthy images; a tie counts as half
    a pair. ``codes`` are patient numbers below ``count``.
    """
    order = np.argsort(scores[~labels], kind="stable")
    healthy = scores[~labels][order]
    # Healthy images of each patient among the lowest n, (n + 1, S).
    below = np.zeros((len(order) + 1, count), np.int32)
    below[np.arange(1, len(order) + 1), codes[~labels][order]] = 1
    below = below.cumsum(axis=0, dtype=np.int32)
    by_patient = np.argsort(codes[labels], kind="stable")
    leukemic = scores[labels][by_patient]
    outscored = below[np.searchsorted(healthy, leukemic)]
    outscored += below[np.searchsorted(healthy, leukemic, side="right")]
    present, starts = np.unique(codes[labels][by_patient], return_index=True)
    won = np.zeros((count, count))
    won[present] = np.add.reduceat(outscored, starts, axis=0, dtype=np.int64) / 2
    return won


# --- Definitions


def _ratio(numerator: Floats, whole: Floats) -> Floats:
    """``numerator / whole``; 0 where both are 0."""
    return numerator / np.maximum(whole, np.finfo(np.float64).tiny)


def _auroc(images: Reweighted, weights: Floats, patients: bool) -> Floats:
    """Weighted share of the pairs of both classes in the right order."""
    won, (positive, negative) = images.won, images.of_class
    if patients:
        won = won / np.maximum(np.outer(positive, negative), 1)
        positive, negative = (positive > 0).astype(float), (negative > 0).astype(float)
    pairs = (weights @ positive) * (weights @ negative)
    return np.asarray(((weights @ won) * weights).sum(axis=1) / pairs)


_CHUNK = 500_000
"""Largest number of values in a matrix of weights by scores, 4 MB."""


def _auprc(images: Reweighted, weights: Floats, _: bool) -> Floats:
    """Average precision with tied scores grouped, as in scikit-learn."""
    values, rank = np.unique(-images.scores, return_inverse=True)
    at = rank * images.count + images.codes
    # Images of each patient by score (V, S), the highest score first: weighting these sums is a
    # matrix product, several times as fast as summing weighted images.
    leukemic, every = (
        np.bincount(chosen, minlength=len(values) * images.count)
        .reshape(len(values), images.count)
        .astype(np.float64)
        for chosen in (at[images.labels], at)
    )
    kept = leukemic.any(axis=1)
    by_score = leukemic[kept], leukemic.cumsum(axis=0)[kept], every.cumsum(axis=0)[kept]
    found = []
    for chunk in np.array_split(weights, max(1, len(weights) * int(kept.sum()) // _CHUNK)):
        own, reached, called = (counts @ chunk.T for counts in by_score)
        found.append((_ratio(reached, called) * own).sum(axis=0) / reached[-1])
    return np.concatenate(found)


def _brier(images: Reweighted, weights: Floats, scores: Floats) -> Floats:
    squares = images.sums((scores - images.labels) ** 2)
    return (weights @ squares) / (weights @ sum(images.of_class))


def _ece(images: Reweighted, weights: Floats, scores: Floats) -> Floats:
    index = images.codes * ECE_BINS + bin_index(scores, ECE_BINS)
    off = np.bincount(index, scores - images.labels, images.count * ECE_BINS)
    apart = np.abs(weights @ off.reshape(images.count, ECE_BINS)).sum(axis=1)
    return np.asarray(apart / (weights @ sum(images.of_class)))


def _mcc(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return _ratio(tp * tn - fp * fn, np.sqrt(product))


def _torchmetrics(name: str, label: Label | None = None, **settings: Any) -> Any:
    """Return a :attr:`Metric.library` that calls torchmetrics, mostly in single precision."""

    def value(given: npt.NDArray[Any], labels: Integers) -> float:
        # Loading torch takes seconds, and a report needs weighted metrics only.
        import torch
        from torchmetrics.functional import classification

        called = given.astype(np.int64) if given.dtype == bool else given
        function = getattr(classification, name)
        found = function(torch.from_numpy(called), torch.from_numpy(labels), **settings)
        return float(found if label is None else found[label])

    return value


def _mean_square(scores: Floats, labels: Integers) -> float:
    import torch

    return float(torch.mean((torch.from_numpy(scores) - torch.from_numpy(labels)) ** 2))


def _averages(name: str, one: Callable[[Floats, Floats, Floats], Floats]) -> dict[str, Metric]:
    """Metric of each class, their mean, and their mean weighted by class size.

    ``one`` is the metric of a class, from its images called so, others called so, and images of it
    that are missed.
    """

    def hem(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
        return one(tn, fn, fp)

    def leukemic(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
        return one(tp, fp, fn)

    def macro(*counts: Floats) -> Floats:
        return (hem(*counts) + leukemic(*counts)) / 2

    def weighted(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
        share = _ratio(tp + fn, tp + fp + fn + tn)
        return (1 - share) * hem(tp, fp, fn, tn) + share * leukemic(tp, fp, fn, tn)

    function = f"multiclass_{name}{'_score' if name == 'f1' else ''}"
    found = {}
    for label, of_class in ((Label.HEM, hem), (Label.ALL, leukemic)):
        library = _torchmetrics(function, label, num_classes=2, average="none")
        # Recall depends on the images of its class only.
        classes = (label,) if name == "recall" else tuple(Label)
        found[label.folder] = Metric("", of_class, classes=classes, library=library)
    for average, mean in (("macro", macro), ("weighted", weighted)):
        library = _torchmetrics(function, num_classes=2, average=average)
        found[average] = Metric("", mean, library=library)
    return {
        f"{name}_{end}": replace(metric, title=f"{name.capitalize()} {end}")
        for end, metric in found.items()
    }


_RECALLS = _averages("recall", lambda hit, wrong, missed: _ratio(hit, hit + missed))

METRICS: dict[str, Metric] = {
    "auroc": Metric(
        "AUROC", _auroc, "ranking", patients=True, library=_torchmetrics("binary_auroc")
    ),
    "auprc": Metric("AUPRC", _auprc, "ranking", library=_torchmetrics("binary_average_precision")),
    "brier": Metric("Brier", _brier, "probability", library=_mean_square),
    "ece": Metric(
        "ECE",
        _ece,
        "probability",
        absolute=True,
        library=_torchmetrics("binary_calibration_error", n_bins=ECE_BINS, norm="l1"),
    ),
    "accuracy": Metric("accuracy", lambda tp, fp, fn, tn: _ratio(tp + tn, tp + fp + fn + tn)),
    "balanced_accuracy": replace(_RECALLS["recall_macro"], title="bal. acc.", patients=True),
    "sensitivity": replace(_RECALLS["recall_all"], title="sens.", patients=True),
    "specificity": replace(_RECALLS["recall_hem"], title="spec.", patients=True),
    "mcc": Metric("MCC", _mcc, lowest=-1.0),
    **_averages("precision", lambda hit, wrong, missed: _ratio(hit, hit + wrong)),
    **_RECALLS,
    **_averages("f1", lambda hit, wrong, missed: _ratio(2 * hit, 2 * hit + wrong + missed)),
}
"""Every metric. ``auroc`` is the area under the ROC curve, ``auprc`` average precision, ``brier``
the mean squared error of the probability, ``ece`` the expected calibration error over 15 bins of
equal width (Guo et al. 2017), ``mcc`` that of Matthews. Sensitivity is the recall of leukemic
images, specificity that of healthy images; ``_hem`` and ``_all`` are of one class, ``_macro`` their
mean and ``_weighted`` weighted by class size. Precision of a class that is never predicted is 0."""


# --- Values


def all_metrics(
    scores: Vector,
    labels: Vector,
    thresholds: Thresholds,
    calibrated: Vector | None = None,
    patients: npt.NDArray[np.generic] | None = None,
) -> dict[str, float]:
    """Compute the value of all :data:`METRICS` of N images.

    Returns:
        Ranking and probability metrics, the latter also with the suffix ``_calibrated`` if
        calibrated scores are given; decision metrics at each threshold, named without a suffix at
        ``default`` and with a suffix such as ``@youden`` at the others; and :func:`patient_metrics`
        if patients are given.

    Raises:
        ValueError: a single class, or scores outside [0, 1].
    """
    checked, truth = as_scores_and_labels(scores, labels)
    after = None if calibrated is None else as_scores_and_labels(calibrated, labels)[0]
    whose = np.zeros(len(truth), np.int64) if patients is None else patients
    images = Sample(checked, truth, whose, after).reweighted(thresholds)
    return {
        name: images.value(name)
        for name, one in images.named.items()
        if patients is not None or not one.patients
    }


def patient_metrics(sample: Sample, thresholds: Thresholds) -> dict[str, float]:
    """Compute the metrics in which every patient of a class weighs the same.

    If one healthy patient has 789 of 825 images, an average over images is that patient's. Names
    are those of :func:`all_metrics`, with the suffix :data:`PATIENTS` before a threshold's.
    """
    images = sample.reweighted(thresholds)
    return {name: images.value(name) for name, one in images.named.items() if one.patients}


def thesis_metrics(scores: Vector, labels: Vector, threshold: float = 0.5) -> dict[str, float]:
    """Compute metrics in the convention of the thesis, to compare its tables 3 to 5 with ours.

    Returns:
        ``accuracy``; ``sensitivity``, in the thesis the recall of *healthy* images, and
        ``specificity``, the recall of leukemic images; ``auc`` of hard labels, equal to balanced
        accuracy; and ``precision``, ``recall`` and ``f1`` each ``_macro`` and ``_weighted``.
    """
    checked, truth = as_scores_and_labels(scores, labels)
    images = Sample(checked, truth, np.zeros(len(truth))).reweighted({DEFAULT: threshold})
    ours = {
        "accuracy": "accuracy",
        "sensitivity": "recall_hem",
        "specificity": "recall_all",
        "auc": "balanced_accuracy",
    }
    for name in ("precision", "recall", "f1"):
        ours |= {f"{name}_{average}": f"{name}_{average}" for average in ("macro", "weighted")}
    values = images.metrics(np.ones((1, 1)), list(ours.values()))[:, 0]
    return dict(zip(ours, values.tolist(), strict=True))
