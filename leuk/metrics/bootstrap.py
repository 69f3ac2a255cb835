"""Pairs of a leukemic and a healthy image, counted by their subjects.

AUROC is the share of pairs in the right order, so these counts give it for any weights of the
subjects, and for two models with swapped scores.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit, stdtrit

from leuk.data.labels import Label
from leuk.data.splits import effective_number
from leuk.metrics.arrays import Flags, Floats, Integers, Vector, as_scores_and_labels
from leuk.metrics.calibration import ECE_BINS, bin_index
from leuk.metrics.thresholds import DEFAULT, Thresholds, suffixed
from leuk.store import digest


def pairs_won(scores: Floats, labels: Flags, subjects: Integers, count: int) -> Floats:
    """Count the pairs in which a subject's leukemic images outscore another's healthy images.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)`` True for leukemic.
        subjects: ``(N,)`` subject numbers, from 0.
        count: number of subjects.

    Returns:
        ``(S, S)``: rows are subjects of leukemic images, columns of healthy images; a tie counts as
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


def weight_outranked(
    scores: Floats, labels: Integers, weights: Floats, at: Floats, label: int
) -> Floats:
    """Sum the weights of the images of the other class that are in the right order with a score.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)``, 1 = leukemic.
        weights: ``(N,)`` weights of the images.
        at: ``(M,)`` scores of images of the class ``label``.
        label: class of these images, 0 or 1.

    Returns:
        ``(M,)`` sums; a tie counts half its weight.
    """
    others = labels != label
    order = np.argsort(scores[others], kind="stable")
    other, below = scores[others][order], np.append(0, weights[others][order].cumsum())
    left, right = (below[np.searchsorted(other, at, side=side)] for side in ("left", "right"))
    lower = (left + right) / 2
    return np.asarray(lower if label == 1 else below[-1] - lower)


# --- Metrics under many reweightings of the same subjects at once

_CHUNK = 500_000
"""Largest number of values in a matrix of weights by scores, 4 MB."""

_LEAST = np.finfo(np.float64).tiny
"""Smallest divisor: testing each value for 0 first would take three times as long."""


class Reweighted:
    """Metrics of a set of images whose subjects are weighted.

    A weight of 2 counts every image of the subject twice, a weight of 0 leaves them out. Both
    classes need a subject with a positive weight.

    Metrics whose name ends in :data:`PATIENTS` weigh each image by 1 / (the patient's images of
    that class), so that every patient of a class weighs the same.

    Args:
        scores: ``(N,)`` probability of leukemia.
        labels: ``(N,)``, 1 = leukemic.
        subjects: ``(N,)`` subject numbers, from 0.
        decided: threshold name to ``(N,)`` True for images called leukemic.
        calibrated: ``(N,)`` scores after temperature scaling; None without calibration.
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
        self._positions = {cut: position for position, cut in enumerate(decided)}
        self._last: tuple[Floats, Floats] | None = None
        self._probabilities = {"": scores}
        if calibrated is not None:
            self._probabilities["_calibrated"] = calibrated

    @property
    def names(self) -> list[str]:
        """Names of all metrics, as in ``all_metrics``."""
        ranking = ["auroc", "auprc"]
        ranking += [f"{name}{end}" for end in self._probabilities for name in ("brier", "ece")]
        ranking += [suffixed(name, cut) for cut in self._decided for name in DECISIONS]
        return ranking + self.patient_names

    @property
    def patient_names(self) -> list[str]:
        """Names of the metrics that weigh every patient of a class the same."""
        decided = [suffixed(name, cut) for cut in self._decided for name in PATIENT_DECISIONS]
        return [f"auroc{PATIENTS}", *decided]

    def metrics(self, weights: Floats, names: Sequence[str]) -> Floats:
        """Compute metrics ``(F, D)``, in the order of ``names``, for weights ``(D, S)``.

        Raises:
            ValueError: a name that is not among :attr:`names`.
        """
        own = {name: row for row, name in enumerate(self.names)}
        if unknown := [name for name in names if name not in own]:
            raise _unknown_metric(unknown[0], self.names)
        return self._metrics(weights)[[own[name] for name in names]]

    def _metrics(self, weights: Floats) -> Floats:
        """All metrics, in the order of :attr:`names`."""
        rows = [self.auroc(weights), self._auprc(weights)]
        for scores in self._probabilities.values():
            rows += [self._brier(scores, weights), self._ece(scores, weights)]
        decided: list[Floats] = []
        by_patient = [self._auroc_patients(weights)[None]]
        if self._decided:
            decided = [np.stack(list(self.decisions(weights).values()), axis=1)]
            counts = self._counts(weights, self.image_weights)
            by_patient.append(np.stack([f(*counts) for f in PATIENT_DECISIONS.values()], axis=1))
        blocks = [np.stack(rows), *decided, *by_patient]
        return np.concatenate([block.reshape(-1, len(weights)) for block in blocks])

    def decisions(self, weights: Floats) -> dict[str, Floats]:
        """Name of each of :data:`DECISIONS` to values ``(thresholds, D)``."""
        counts = self._counts(weights)
        return {name: decision(*counts) for name, decision in DECISIONS.items()}

    def metric(self, name: str, weights: Floats) -> Floats:
        """Compute a metric ``(D,)`` for weights ``(D, S)``.

        Raises:
            ValueError: a name that is not among :attr:`names`.
        """
        if name in ("auroc", "auprc"):
            return self.auroc(weights) if name == "auroc" else self._auprc(weights)
        if name == f"auroc{PATIENTS}":
            return self._auroc_patients(weights)
        base, after = _parsed(name)
        if base in PATIENT_DECISIONS and after in self._positions:
            counts = self._counts(weights, self.image_weights)
            return np.asarray(PATIENT_DECISIONS[base](*counts)[self._positions[after]])
        if base in DECISIONS and after in self._positions:
            return np.asarray(DECISIONS[base](*self._counts(weights))[self._positions[after]])
        if base in ("brier", "ece") and after in self._probabilities:
            scores = self._probabilities[after]
            return self._brier(scores, weights) if base == "brier" else self._ece(scores, weights)
        raise _unknown_metric(name, self.names)

    def auroc(self, weights: Floats) -> Floats:
        """Area under the ROC curve: the weighted share of pairs of both classes in the right order.

        Cached for the last weights, as a model is compared with many others under the same.
        """
        if self._last is None or self._last[0] is not weights:
            positive, negative = self._of_class
            pairs = (weights @ positive) * (weights @ negative)
            found = np.asarray(((weights @ self.won) * weights).sum(axis=1) / pairs)
            found.setflags(write=False)
            self._last = weights, found
        return self._last[1]

    def _auroc_patients(self, weights: Floats) -> Floats:
        positive, negative = (counts > 0 for counts in self._of_class)
        won = self.won / np.maximum(np.outer(*self._of_class), 1)
        pairs = (weights @ positive) * (weights @ negative)
        return np.asarray(((weights @ won) * weights).sum(axis=1) / pairs)

    @cached_property
    def image_weights(self) -> Floats:
        """``(N,)`` weight of each image under which the patients of a class weigh the same."""
        positive, negative = self._of_class
        return np.asarray(
            1 / np.where(self.labels, positive[self.subjects], negative[self.subjects])
        )

    @cached_property
    def _of_class(self) -> tuple[Floats, Floats]:
        """Numbers of leukemic and healthy images of each subject."""
        return self._sums(self.labels), self._sums(~self.labels)

    @cached_property
    def won(self) -> Floats:
        return pairs_won(self.scores, self.labels, self.subjects, self.count)

    def _auprc(self, weights: Floats) -> Floats:
        """Average precision with tied scores grouped, as in scikit-learn."""
        # Not cached: tens of megabytes for a large test stage, times the runs of a configuration.
        by_score = self._by_score()
        count = len(weights) * len(by_score[0]) // _CHUNK
        chunks = np.array_split(weights, max(1, count))
        return np.concatenate([_average_precision(by_score, chunk) for chunk in chunks])

    def _by_score(self) -> tuple[Floats, Floats, Floats]:
        """Numbers of images of each subject by score, ``(V, S)`` each, the highest score first.

        The three are: leukemic images at a score, leukemic images and all images at or above it,
        for scores of leukemic images. Weighting precomputed sums is a matrix product, several times
        as fast as summing weighted images.
        """
        values, rank = np.unique(-self.scores, return_inverse=True)
        at = rank * self.count + self.subjects
        size = len(values) * self.count
        leukemic, images = (
            np.bincount(chosen, minlength=size).reshape(len(values), self.count).astype(np.float64)
            for chosen in (at[self.labels], at)
        )
        kept = leukemic.any(axis=1)
        return leukemic[kept], leukemic.cumsum(axis=0)[kept], images.cumsum(axis=0)[kept]

    def _counts(self, weights: Floats, images: Floats | None = None) -> Sequence[Floats]:
        """Weighted true and false positives, false and true negatives, ``(thresholds, D)`` each.

        Args:
            weights: ``(D, S)`` weights of the subjects.
            images: ``(N,)`` weights of the images; 1 if None.
        """
        called, labels = np.stack(list(self._decided.values())), self.labels
        kinds = (called & labels, called & ~labels, ~called & labels, ~called & ~labels)
        each = np.ones(len(labels)) if images is None else images
        sums = np.stack([[self._sums(flags * each) for flags in kind] for kind in kinds])
        return list(sums @ weights.T)

    def _brier(self, scores: Floats, weights: Floats) -> Floats:
        squares = self._sums((scores - self.labels) ** 2)
        return np.asarray((weights @ squares) / self._total(weights))

    def _ece(self, scores: Floats, weights: Floats) -> Floats:
        index = self.subjects * ECE_BINS + bin_index(scores, ECE_BINS)
        off = np.bincount(index, scores - self.labels, self.count * ECE_BINS)
        apart = np.abs(weights @ off.reshape(self.count, ECE_BINS)).sum(axis=1)
        return np.asarray(apart / self._total(weights))

    def _total(self, weights: Floats) -> Floats:
        return np.asarray(weights @ sum(self._of_class))

    def _sums(self, values: npt.NDArray[np.generic]) -> Floats:
        """Sum of ``values`` ``(N,)`` over the images of each subject."""
        sums = np.bincount(self.subjects, values.astype(np.float64), self.count)
        return sums.astype(np.float64)


def _average_precision(by_score: tuple[Floats, Floats, Floats], weights: Floats) -> Floats:
    at, found, called = (counts @ weights.T for counts in by_score)
    return np.asarray((_ratio(found, called) * at).sum(axis=0) / found[-1])


def _unknown_metric(name: str, names: Sequence[str]) -> ValueError:
    return ValueError(f"no metric {name}; choose from {', '.join(names)}")


@cache
def _parsed(name: str) -> tuple[str, str]:
    """Split a metric's name into its base and the threshold or ``_calibrated``."""
    base, _, cut = name.partition("@")
    if base in DECISIONS or base in PATIENT_DECISIONS:
        return base, cut or DEFAULT
    base, under, end = base.partition("_")
    return base, f"{under}{end}"


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


def _ratio(numerator: Floats, whole: Floats) -> Floats:
    """``numerator / whole``; 0 where both are 0."""
    return numerator / np.maximum(whole, _LEAST)


def _f1(hit: Floats, wrong: Floats, missed: Floats) -> Floats:
    return _ratio(2 * hit, 2 * hit + wrong + missed)


def _mcc(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return _ratio(tp * tn - fp * fn, np.sqrt(product))


_Decision = Callable[[Floats, Floats, Floats, Floats], Floats]

_OF_CLASS: dict[str, dict[str, _Decision]] = {
    "precision": {
        "hem": lambda tp, fp, fn, tn: _ratio(tn, tn + fn),
        "all": lambda tp, fp, fn, tn: _ratio(tp, tp + fp),
    },
    "recall": {
        "hem": lambda tp, fp, fn, tn: _ratio(tn, tn + fp),
        "all": lambda tp, fp, fn, tn: _ratio(tp, tp + fn),
    },
    "f1": {
        "hem": lambda tp, fp, fn, tn: _f1(tn, fn, fp),
        "all": lambda tp, fp, fn, tn: _f1(tp, fp, fn),
    },
}


def _averages(name: str) -> dict[str, _Decision]:
    """Functions of a metric for each class, and of its plain and weighted means."""
    hem, leukemic = (_OF_CLASS[name][label.folder] for label in Label)

    def macro(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
        return (hem(tp, fp, fn, tn) + leukemic(tp, fp, fn, tn)) / 2

    def weighted(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
        share = _ratio(tp + fn, tp + fp + fn + tn)
        return (1 - share) * hem(tp, fp, fn, tn) + share * leukemic(tp, fp, fn, tn)

    return {
        **{f"{name}_{label}": function for label, function in _OF_CLASS[name].items()},
        f"{name}_macro": macro,
        f"{name}_weighted": weighted,
    }


_AVERAGED = {key: function for name in _OF_CLASS for key, function in _averages(name).items()}

DECISIONS: dict[str, _Decision] = {
    "accuracy": lambda tp, fp, fn, tn: _ratio(tp + tn, tp + fp + fn + tn),
    "balanced_accuracy": _AVERAGED["recall_macro"],
    "sensitivity": _AVERAGED["recall_all"],
    "specificity": _AVERAGED["recall_hem"],
    "mcc": _mcc,
    **_AVERAGED,
}
"""Name to the metric, a function of weighted true and false positives, false and true negatives."""

PATIENTS = "_patients"
"""Suffix of metrics in which every patient of a class weighs the same; precedes a threshold's."""

PATIENT_DECISIONS: dict[str, _Decision] = {
    f"{name}{PATIENTS}": DECISIONS[name]
    for name in ("balanced_accuracy", "sensitivity", "specificity")
}
"""Name to the metric, a function of counts in which every patient of a class weighs the same."""


# --- Scores, labels and subjects of the images of a stage


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

    @cached_property
    def image_weights(self) -> Floats:
        """``(N,)`` weight of each image under which the patients of a class weigh the same."""
        return self.at_half.image_weights

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


# --- Performance per subject, since an average over images hides the subjects a model fails on


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


# --- Metrics in the thesis's conventions, so that its tables 3 to 5 can be compared with ours

_PER_CLASS = ("precision", "recall", "f1")


def thesis_metrics(scores: Vector, labels: Vector, threshold: float = 0.5) -> dict[str, float]:
    """Metrics of a model in the conventions of the thesis.

    Args:
        scores: ``(N,)`` probability of leukemia, in [0, 1].
        labels: ``(N,)``, 1 = leukemic (not the thesis's coding); both classes present.
        threshold: images with at least this score are called leukemic.

    Returns:
        ``accuracy``; ``sensitivity``, in the thesis the recall of *healthy* images, and
        ``specificity``, the recall of leukemic images; ``auc`` of hard labels, equal to balanced
        accuracy; and ``precision``, ``recall`` and ``f1`` each ``_macro`` and ``_weighted``.

    Raises:
        ValueError: see :func:`leuk.metrics.classification.ranking_metrics`.
    """
    checked, truth = as_scores_and_labels(scores, labels)
    single = np.zeros(len(truth), np.int64)  # all images as those of a single subject
    images = Reweighted(checked, truth, single, {DEFAULT: checked >= threshold})
    ours = {name: float(value[0, 0]) for name, value in images.decisions(np.ones((1, 1))).items()}
    return {
        "accuracy": ours["accuracy"],
        "sensitivity": ours["recall_hem"],
        "specificity": ours["recall_all"],
        "auc": ours["balanced_accuracy"],
        **{
            f"{name}_{average}": ours[f"{name}_{average}"]
            for name in _PER_CLASS
            for average in ("macro", "weighted")
        },
    }


# --- Validation loss that is invariant to the class prior


def prior_free_loss(log_odds: Floats, labels: Integers) -> float:
    """Compute the class-balanced log loss after the best constant shift of the log odds.

    Training on other class proportions (oversampling, class weights, synthetic images) adds a
    constant to the log odds of an ideal classifier (Saerens et al. 2002, section 2), which a plain
    log loss counts as an error. Here each class weighs half, and the constant minimizes the loss,
    so adding any constant to all log odds changes nothing.

    Args:
        log_odds: ``(N,)`` log odds of the positive class, at any base rate.
        labels: ``(N,)`` in {0, 1}.

    Returns:
        Loss in nats: log 2 for equal log odds, near 0 for well separated classes, NaN if a class is
        missing or a value is not finite.
    """
    if not np.isfinite(log_odds).all() or len(np.unique(labels)) < 2:
        return math.nan
    # Relative to the smallest, so that a constant cancels before any rounding.
    relative = log_odds - log_odds.min()
    positive = labels == 1

    def slope(shift: float) -> float:
        """Twice the derivative of the loss, which rises from at most 0 to at least 0."""
        probability = expit(relative + shift)
        return float(probability[~positive].mean() + probability[positive].mean() - 1)

    shifted = relative + brentq(slope, -relative.max(), 0.0, xtol=1e-10)
    losses = np.logaddexp(0, np.where(positive, -shifted, shifted))
    return float(losses[~positive].mean() + losses[positive].mean()) / 2


# --- Standard errors of means over folds, with subjects and seeds nested in folds

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


# --- Confidence intervals of all metrics, from resampling patients

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
    """Confidence intervals of all metrics of :func:`leuk.metrics.classification.all_metrics`.

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
    metric that weighs images (:func:`leuk.data.splits.effective_patients`).

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
