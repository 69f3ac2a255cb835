"""Classification metrics, one definition each; 1 = leukemic = positive.

A metric is a function of images whose patients are weighted, for many weightings at once: weights
of 1 give its value, resampled weights its interval, and weights that swap two models its p value.
To add one, write the function and list it in :data:`METRICS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from leuk.data.labels import Label
from leuk.metrics.arrays import Flags, Floats, Integers, Vector, as_scores_and_labels
from leuk.metrics.calibration import ECE_BINS, bin_index

DEFAULT = "default"
"""Name of the threshold whose metrics have no suffix."""

PATIENTS = "_patients"
"""Suffix of metrics in which every patient of a class weighs the same; precedes a threshold's."""

CALIBRATED = "_calibrated"
"""Suffix of metrics of scores after temperature scaling."""

Thresholds = Mapping[str, float]
"""Name to threshold; an image is called leukemic if its score is at least the threshold."""


@dataclass(frozen=True)
class Metric:
    """Definition of a metric.

    Attributes:
        title: name in tables.
        weighted: function that returns values ``(D,)`` for D weightings. Its arguments depend on
            ``kind``. ``decision``: weighted true positives, false positives, false negatives and
            true negatives ``(D,)``, at each threshold. ``probability``: a :class:`Reweighted`, the
            weights ``(D, S)`` of its patients, and scores ``(N,)``, before and after calibration.
            ``ranking``: a :class:`Reweighted`, the weights, and True to weigh the patients of a
            class the same.
        kind: ``decision``, ``probability`` or ``ranking``.
        classes: classes whose images the metric depends on.
        lowest: smallest possible value; the largest is 1.
        patients: also computed with equal weight for every patient of a class.
        absolute: a mean of absolute values, which fold at 0: near it, an interval on log-odds
            would stretch to [0, 1].
        library: function of decisions or scores, and labels, that gives the plain value instead of
            ``weighted``: it differs in the last digits only, and keeps those of older records.
    """

    title: str
    weighted: Callable[..., Floats]
    kind: str = "decision"
    classes: tuple[Label, ...] = tuple(Label)
    lowest: float = 0.0
    patients: bool = False
    absolute: bool = False
    library: Callable[[npt.NDArray[Any], Integers], float] | None = None


class Named(NamedTuple):
    """Metric of a full name such as ``sensitivity_patients@youden``.

    Attributes:
        metric: its definition.
        at: threshold of a decision; suffix of the scores of a probability metric.
        patients: True if every patient of a class weighs the same.
    """

    metric: Metric
    at: str = ""
    patients: bool = False


class Reweighted:
    """Metrics of a set of images whose patients are weighted.

    A weight of 2 counts every image of the patient twice, a weight of 0 leaves them out. Both
    classes need a patient with a positive weight. Metrics whose name has the suffix
    :data:`PATIENTS` weigh each image by 1 / (the patient's images of that class), so that every
    patient of a class weighs the same.

    Args:
        scores: ``(N,)`` probability of leukemia.
        labels: ``(N,)``, 1 = leukemic.
        subjects: ``(N,)`` patient numbers, from 0.
        decided: threshold name to ``(N,)`` True for images called leukemic.
        calibrated: ``(N,)`` scores after temperature scaling; None without calibration.

    Attributes:
        count: S, the number of patients.
        named: full name of each metric to its definition.
    """

    def __init__(
        self,
        scores: Floats,
        labels: Integers,
        subjects: Integers,
        decided: Mapping[str, Flags],
        calibrated: Floats | None = None,
    ) -> None:
        self.scores, self.labels, self.subjects = scores, labels.astype(bool), subjects
        self.count = int(subjects.max()) + 1
        self._decided = decided
        self._probabilities = {"": scores}
        if calibrated is not None:
            self._probabilities[CALIBRATED] = calibrated
        self._last: tuple[Floats, dict[bool, Floats]] = np.empty(0), {}
        endings: dict[str, dict[str, str]] = {
            "ranking": {"": ""},
            "probability": {end: end for end in self._probabilities},
            "decision": {cut: "" if cut == DEFAULT else f"@{cut}" for cut in decided},
        }
        self.named: dict[str, Named] = {}
        for patients, middle in ((False, ""), (True, PATIENTS)):
            for kind, ends in endings.items():
                for at, end in ends.items():
                    for name, metric in METRICS.items():
                        if metric.kind == kind and (metric.patients or not patients):
                            self.named[f"{name}{middle}{end}"] = Named(metric, at, patients)

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
        metric, at, patients = self.find(name)
        if metric.kind == "ranking":
            found = metric.weighted(self, weights, patients)
        elif metric.kind == "probability":
            found = metric.weighted(self, weights, self._probabilities[at])
        else:
            counts = self._counts(weights, patients)
            found = metric.weighted(*counts[:, list(self._decided).index(at)])
        return np.asarray(found)

    def metrics(self, weights: Floats, names: Sequence[str]) -> Floats:
        """Compute metrics ``(F, D)``, in the order of ``names``, as :meth:`metric` does."""
        return np.stack([self.metric(name, weights) for name in names])

    def value(self, name: str) -> float:
        """Compute the plain value of a metric, for weights of 1."""
        metric, at, patients = self.named[name]
        if metric.library is None or patients:
            return float(self.metric(name, np.ones((1, self.count)))[0])
        given = self._decided if metric.kind == "decision" else self._probabilities
        return metric.library(given[at], self.labels.astype(np.int64))

    def sums(self, values: npt.NDArray[np.generic]) -> Floats:
        """Sum of ``values`` ``(N,)`` over the images of each patient ``(S,)``."""
        sums = np.bincount(self.subjects, values.astype(np.float64), self.count)
        return sums.astype(np.float64)

    @cached_property
    def of_class(self) -> tuple[Floats, Floats]:
        """Numbers of leukemic and healthy images of each patient, ``(S,)``."""
        return self.sums(self.labels), self.sums(~self.labels)

    @cached_property
    def won(self) -> Floats:
        """Pairs in the right order ``(S, S)``, see :func:`pairs_won`."""
        return pairs_won(self.scores, self.labels, self.subjects, self.count)

    def _counts(self, weights: Floats, patients: bool) -> Floats:
        """Weighted true and false positives, false and true negatives, ``(4, thresholds, D)``.

        Those of the last weights are kept, since many metrics use them.
        """
        if self._last[0] is not weights:
            self._last = weights, {}
        if patients not in self._last[1]:
            each = np.ones(len(self.labels))
            if patients:
                leukemic, healthy = (counts[self.subjects] for counts in self.of_class)
                each = 1 / np.where(self.labels, leukemic, healthy)
            called, labels = np.stack(list(self._decided.values())), self.labels
            kinds = (called & labels, called & ~labels, ~called & labels, ~called & ~labels)
            sums = np.stack([[self.sums(flags * each) for flags in kind] for kind in kinds])
            self._last[1][patients] = sums @ weights.T
        return self._last[1][patients]


def pairs_won(scores: Floats, labels: Flags, subjects: Integers, count: int) -> Floats:
    """Count the pairs in which a patient's leukemic images outscore another's healthy images.

    AUROC is the share of such pairs, so these counts give it for any weights of the patients.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)`` True for leukemic.
        subjects: ``(N,)`` patient numbers, from 0.
        count: S, the number of patients.

    Returns:
        ``(S, S)``: rows are patients of leukemic images, columns of healthy images; a tie counts as
        half a pair.
    """
    order = np.argsort(scores[~labels], kind="stable")
    healthy = scores[~labels][order]
    below = np.zeros((len(order) + 1, count), np.int32)
    below[np.arange(1, len(order) + 1), subjects[~labels][order]] = 1
    below = below.cumsum(axis=0, dtype=np.int32)
    by_subject = np.argsort(subjects[labels], kind="stable")
    leukemic = scores[labels][by_subject]
    outscored = below[np.searchsorted(healthy, leukemic)]
    outscored += below[np.searchsorted(healthy, leukemic, side="right")]
    present, starts = np.unique(subjects[labels][by_subject], return_index=True)
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
    at = rank * images.count + images.subjects
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
    index = images.subjects * ECE_BINS + bin_index(scores, ECE_BINS)
    off = np.bincount(index, scores - images.labels, images.count * ECE_BINS)
    apart = np.abs(weights @ off.reshape(images.count, ECE_BINS)).sum(axis=1)
    return np.asarray(apart / (weights @ sum(images.of_class)))


def _mcc(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return _ratio(tp * tn - fp * fn, np.sqrt(product))


_PER_CLASS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "precision": lambda hit, wrong, missed: _ratio(hit, hit + wrong),
    "recall": lambda hit, wrong, missed: _ratio(hit, hit + missed),
    "f1": lambda hit, wrong, missed: _ratio(2 * hit, 2 * hit + wrong + missed),
}
"""Name to the metric of a class, from its images called so, others called so, and images missed."""


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


def _averages(name: str) -> dict[str, Metric]:
    """Metric of each class, their mean, and their mean weighted by class size."""
    one, function = _PER_CLASS[name], f"multiclass_{name}{'_score' if name == 'f1' else ''}"

    def hem(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
        return one(tn, fn, fp)

    def leukemic(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
        return one(tp, fp, fn)

    def macro(*counts: Floats) -> Floats:
        return (hem(*counts) + leukemic(*counts)) / 2

    def weighted(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
        share = _ratio(tp + fn, tp + fp + fn + tn)
        return (1 - share) * hem(tp, fp, fn, tn) + share * leukemic(tp, fp, fn, tn)

    short = name.capitalize()
    found = {
        f"{name}_{label.folder}": Metric(
            f"{short} {label.folder}",
            of_class,
            # Recall depends on the images of its class only.
            classes=(label,) if name == "recall" else tuple(Label),
            library=_torchmetrics(function, label, num_classes=2, average="none"),
        )
        for label, of_class in ((Label.HEM, hem), (Label.ALL, leukemic))
    }
    for average, mean in (("macro", macro), ("weighted", weighted)):
        library = _torchmetrics(function, num_classes=2, average=average)
        found[f"{name}_{average}"] = Metric(f"{short} {average}", mean, library=library)
    return found


_RECALLS = _averages("recall")


def _recall(title: str, end: str) -> Metric:
    """Recall under another name, also by patient."""
    one = _RECALLS[f"recall_{end}"]
    return Metric(title, one.weighted, classes=one.classes, patients=True, library=one.library)


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
    "balanced_accuracy": _recall("bal. acc.", "macro"),
    "sensitivity": _recall("sens.", "all"),
    "specificity": _recall("spec.", "hem"),
    "mcc": Metric("MCC", _mcc, lowest=-1.0),
    **_averages("precision"),
    **_RECALLS,
    **_averages("f1"),
}
"""Every metric. ``auroc`` is the area under the ROC curve, ``auprc`` average precision, ``brier``
the mean squared error of the probability, ``ece`` the expected calibration error over 15 bins of
equal width (Guo et al. 2017), ``mcc`` that of Matthews. Sensitivity is the recall of leukemic
images, specificity that of healthy images; ``_hem`` and ``_all`` are of one class, ``_macro`` their
mean and ``_weighted`` weighted by class size. Precision of a class that is never predicted is 0."""


# --- Values


def reweighted(
    scores: Vector,
    labels: Vector,
    thresholds: Thresholds,
    calibrated: Vector | None = None,
    patients: npt.NDArray[np.generic] | None = None,
) -> Reweighted:
    """Check scores and labels and return their metrics for any weights of the patients.

    Args:
        scores: ``(N,)`` probability of leukemia, in [0, 1].
        labels: ``(N,)``, 1 = leukemic; both classes present.
        thresholds: name to the smallest score that is called leukemic.
        calibrated: ``(N,)`` scores after temperature scaling.
        patients: ``(N,)`` the patient of each image; a single one if None.

    Raises:
        ValueError: a single class, or scores outside [0, 1].
    """
    checked, truth = as_scores_and_labels(scores, labels)
    after = None if calibrated is None else as_scores_and_labels(calibrated, labels)[0]
    codes = np.zeros(len(truth), np.int64)
    if patients is not None:
        codes = np.unique(patients.astype(str), return_inverse=True)[1]
    decided = {name: checked >= threshold for name, threshold in thresholds.items()}
    return Reweighted(checked, truth, codes, decided, after)


def all_metrics(
    scores: Vector,
    labels: Vector,
    thresholds: Thresholds,
    calibrated: Vector | None = None,
    patients: npt.NDArray[np.generic] | None = None,
) -> dict[str, float]:
    """Compute the value of all :data:`METRICS`; for arguments and errors see :func:`reweighted`.

    Returns:
        Ranking and probability metrics, the latter also with the suffix ``_calibrated`` if
        calibrated scores are given; decision metrics at each threshold, named without a suffix at
        ``default`` and with a suffix such as ``@youden`` at the others; and :func:`patient_metrics`
        if patients are given.
    """
    images = reweighted(scores, labels, thresholds, calibrated, patients)
    return {
        name: images.value(name)
        for name, one in images.named.items()
        if patients is not None or not one.patients
    }


def patient_metrics(
    scores: Vector, labels: Vector, patients: npt.NDArray[np.generic], thresholds: Thresholds
) -> dict[str, float]:
    """Compute the metrics in which every patient of a class weighs the same.

    If one healthy patient has 789 of 825 images, an average over images is that patient's.

    Returns:
        ``auroc_patients``, and ``balanced_accuracy_patients``, ``sensitivity_patients`` and
        ``specificity_patients`` at each threshold, named as in :func:`all_metrics`.
    """
    images = reweighted(scores, labels, thresholds, patients=patients)
    return {name: images.value(name) for name, one in images.named.items() if one.patients}


def thesis_metrics(scores: Vector, labels: Vector, threshold: float = 0.5) -> dict[str, float]:
    """Compute metrics in the convention of the thesis, to compare its tables 3 to 5 with ours.

    Args:
        scores: ``(N,)`` probability of leukemia, in [0, 1].
        labels: ``(N,)``, 1 = leukemic (not the thesis's coding); both classes present.
        threshold: images with at least this score are called leukemic.

    Returns:
        ``accuracy``; ``sensitivity``, in the thesis the recall of *healthy* images, and
        ``specificity``, the recall of leukemic images; ``auc`` of hard labels, equal to balanced
        accuracy; and ``precision``, ``recall`` and ``f1`` each ``_macro`` and ``_weighted``.

    Raises:
        ValueError: a single class, or scores outside [0, 1].
    """
    images = reweighted(scores, labels, {DEFAULT: threshold})
    ours = {
        "accuracy": "accuracy",
        "sensitivity": "recall_hem",
        "specificity": "recall_all",
        "auc": "balanced_accuracy",
    }
    for name in _PER_CLASS:
        ours |= {f"{name}_{average}": f"{name}_{average}" for average in ("macro", "weighted")}
    once = np.ones((1, 1))
    return {name: float(images.metric(own, once)[0]) for name, own in ours.items()}
