"""Metrics under many reweightings of the same subjects at once.

All resampling of :mod:`leuk.evaluate.intervals` and :mod:`leuk.evaluate.significance` uses this
module: a resample of subjects is a row of weights, and every metric of
:func:`leuk.evaluate.metrics.all_metrics` follows from sums over subjects, computed once.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from leuk.data.labels import Label
from leuk.evaluate.pairs import pairs_won
from leuk.evaluate.reliability import ECE_BINS, bin_index
from leuk.evaluate.thresholds import DEFAULT, suffixed
from leuk.evaluate.vectors import Flags, Floats, Integers

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
