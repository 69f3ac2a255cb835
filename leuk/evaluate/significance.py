"""Whether one model is better than another on the same cells.

Paired (both judge the same cells), clustered (persons, not cells, are drawn) and hierarchical
(runs of other seeds within folds). The report compares cells of the grid with it.

Of two tests the larger p counts: one swaps raw scores per patient, the other divides the difference
by its standard error over patients (cluster t). Swapping ranks instead of scores, as Venkatraman &
Begg (1996) do for single images, keeps no level here, because ranks depend on the patients that are
swapped. Rate of p <= 0.05 for two models that differ by chance alone, in 1,000 simulated test sets
with a tenth of the images per patient of C-NMC's folds 0 and 1, pooled and in three folds
(``tests/benchmarks/intervals.py``):

| | swap | t | larger |
|---|---|---|---|
| AUROC, pooled | 0.052 | 0.032 | 0.026 |
| AUROC (patients), pooled | 0.062 | 0.054 | 0.047 |
| AUROC, three folds | 0.047 | 0.023 | 0.013 |
| AUROC (patients), three folds | 0.052 | 0.028 | 0.025 |
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from scipy.special import stdtr

from leuk.data.labels import Label
from leuk.evaluate.hierarchy import Bootstrap, Fold, folds_of
from leuk.evaluate.intervals import range_of
from leuk.evaluate.pairs import beaten
from leuk.evaluate.resampling import PATIENTS, Reweighted
from leuk.evaluate.sample import Sample
from leuk.evaluate.thresholds import DEFAULT, Thresholds
from leuk.evaluate.vectors import Floats

_POWER = 0.8
_AT_HALF: Thresholds = {DEFAULT: 0.5}
_HAIR = 1e-12
"""Differences closer than this are equal up to rounding."""


@dataclass(frozen=True)
class Difference:
    """How two models differ in one figure.

    Attributes:
        metric: the figure.
        difference: of the second model minus the first.
        low: lower end of its 95 % interval, from resampled subjects and, if several, seeds; of all
            that is possible where a class has a single patient, who does not show how patients
            differ.
        high: upper end.
        p: how often a difference at least as large, either way, comes by chance; the larger of
            ``p_swap`` and ``p_t``.
        detectable: the smallest true difference that a test at 5 % would have found on this test
            set with 80 % power; what is smaller cannot be ruled out.
        folds: how many sets of test cells went in.
        runs: how many pairs of runs.
        p_swap: of the test that swaps both models' scores per patient.
        p_t: of the t test with standard errors over patients, and seeds if several.
    """

    metric: str
    difference: float
    low: float
    high: float
    p: float
    detectable: float
    folds: int
    runs: int
    p_swap: float = float("nan")
    p_t: float = float("nan")


@dataclass(frozen=True, eq=False)
class _Pair:
    """Both models of one run, apart for the bootstrap and mixed for the permutations.

    Attributes:
        one: what the first model says.
        other: what the second says of the same cells.
        cuts: the first model's thresholds.
        other_cuts: the second model's.
    """

    one: Sample
    other: Sample
    cuts: Thresholds
    other_cuts: Thresholds

    @cached_property
    def first(self) -> Reweighted:
        return _reweighted(self.one, self.cuts)

    @cached_property
    def second(self) -> Reweighted:
        return _reweighted(self.other, self.other_cuts)

    def difference(self, metric: str, weights: Floats) -> Floats:
        return self.second.metric(metric, weights) - self.first.metric(metric, weights)

    def swapped(self, metric: str, swaps: Floats) -> Floats:
        """Differences with the scores of the subjects marked 1 in ``(P, S)`` swapped."""
        if metric in ("auroc", f"auroc{PATIENTS}"):
            return self._swapped_auroc(metric, swaps)
        one, other = np.hstack([1 - swaps, swaps]), np.hstack([swaps, 1 - swaps])
        return self._mixed.metric(metric, other) - self._mixed.metric(metric, one)

    def _swapped_auroc(self, metric: str, swaps: Floats) -> Floats:
        """The same of AUROCs, which are linear in the swaps.

        The pairs of images stay as many, and pairs of two swapped patients cancel between the
        models: each image of a swapped patient takes its other score among the images of both
        models.
        """
        one, other = self.one, self.other
        weights = one.image_weights if metric.endswith(PATIENTS) else np.ones(len(one))
        gained = np.zeros(len(one))
        for model in (one, other):
            for label in Label:
                chosen = one.labels == label
                before, after = (
                    beaten(model.scores, one.labels, weights, at.scores[chosen], label)
                    for at in (one, other)
                )
                gained[chosen] += before - after
        changed = np.bincount(one.codes, weights * gained, minlength=self.first.count)
        leukemic = one.labels == Label.ALL
        pairs = weights[leukemic].sum() * weights[~leukemic].sum()
        found = self.difference(metric, np.ones((1, self.first.count)))
        return np.asarray(found + swaps @ changed / pairs)

    @cached_property
    def _mixed(self) -> Reweighted:
        """All cells twice, as either model says; the second's subjects are numbered on."""
        samples = (self.one, self.other)
        calibrated = [sample.calibrated for sample in samples if sample.calibrated is not None]
        decisions, other_decisions = (
            self.one.decided(self.cuts),
            self.other.decided(self.other_cuts),
        )
        return Reweighted(
            np.concatenate([sample.scores for sample in samples]),
            np.tile(self.one.labels, 2),
            np.concatenate([self.one.codes, self.one.codes + self.first.count]),
            {cut: np.concatenate([decisions[cut], other_decisions[cut]]) for cut in decisions},
            np.concatenate(calibrated) if len(calibrated) == len(samples) else None,
        )


def _reweighted(sample: Sample, cuts: Thresholds) -> Reweighted:
    return sample.at_half if cuts == _AT_HALF else sample.reweighted(cuts)


def paired_difference(
    a: Sequence[Sample],
    b: Sequence[Sample],
    metric: str = "auroc",
    thresholds: Sequence[tuple[Thresholds, Thresholds]] | None = None,
    draws: int = 1000,
    permutations: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Compare two models over matching runs.

    ``a[i]`` and ``b[i]`` judge the same cells with the same seed. Runs of the same cells are seeds
    of one fold; the figure is meant over seeds, then over folds.

    The test swaps the two models' scores for whole subjects, in all seeds of a fold at once. If the
    models do not differ, swapped scores are as likely as those that were found, however alike the
    cells of a subject are. Swapping supposes that scores of both models mean the same and takes the
    runs as they are, so ``p`` is at least that of a t test whose standard error is over patients
    and, where there are several, seeds. With one seed a fold, luck of that seed cannot be told from
    a better model.

    Args:
        a: the first model's runs.
        b: the second's, in the same order.
        metric: any figure of :func:`leuk.evaluate.metrics.all_metrics`.
        thresholds: of each run the first and the second model's; 0.5 as ``default`` without.
        draws: bootstrap resamples.
        permutations: random swaps; the smallest ``p`` is 1 / (permutations + 1).
        seed: of both.
        level: of the interval.

    Raises:
        ValueError: runs that do not match, a subject that is tested in two folds, or an unknown
            metric.
    """
    _check(a, b)
    cuts = thresholds or [(_AT_HALF, _AT_HALF)] * len(a)
    folds: list[Fold[_Pair]] = []
    for positions in folds_of(a):
        runs = [_Pair(a[i], b[i], *cuts[i]) for i in positions]
        first = a[positions[0]]
        folds.append(Fold(runs, first.strata, runs[0].first.count, first.images))
    found = Bootstrap(folds, draws, seed).estimate(
        lambda run, weights: run.difference(metric, weights),
        equal=metric.partition("@")[0].endswith(PATIENTS),
    )
    p_swap = _permuted(folds, metric, found.value, permutations, seed)
    if any(sample.subjects_of(label) == 1 for sample in a for label in Label):
        # One patient does not show how patients differ.
        found = replace(found, error=np.inf)
    # Models that are equally good on every patient leave nothing to divide by.
    p_t = p_swap
    if found.error:
        p_t = float(2 * stdtr(found.freedom, -abs(found.value) / found.error))
    lowest, highest = range_of(metric)
    most = highest - lowest
    low, high = np.clip(found.interval(level), -most, most)
    detectable = (found.quantile((1 + level) / 2) + found.quantile(_POWER)) * found.error
    return Difference(
        metric,
        found.value,
        float(low),
        float(high),
        max(p_swap, p_t),
        min(detectable, most),
        len(folds),
        len(a),
        p_swap,
        p_t,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for how many there are (Holm 1979), in the order given.

    Comparing each with 0.05 keeps the chance of any false discovery among all of them below 5 %.

    Raises:
        ValueError: a value outside [0, 1].
    """
    values = np.asarray(p_values, np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("p values must lie in [0, 1]; NaN does not")
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(stepped).clip(max=1)
    return [float(value) for value in adjusted]


def _check(a: Sequence[Sample], b: Sequence[Sample]) -> None:
    if len(a) != len(b):
        raise ValueError(f"runs must match one to one, found {len(a)} and {len(b)}")
    for position, (one, other) in enumerate(zip(a, b, strict=True)):
        if one.fingerprint != other.fingerprint:
            raise ValueError(
                f"run {position}: the two models did not judge the same cells in the same order; "
                "compare runs of the same split, fold and data"
            )


def _permuted(
    folds: Sequence[Fold[_Pair]], metric: str, found: float, permutations: int, seed: int
) -> float:
    """Share of random swaps with a difference at least as large, the one found among them."""
    differences = np.zeros(permutations)
    counts = tuple(fold.count for fold in folds)
    for fold, swaps in zip(folds, _swaps(counts, permutations, seed), strict=True):
        of_runs = [run.swapped(metric, swaps) for run in fold.runs]
        differences += np.mean(of_runs, axis=0) / len(folds)
    larger = int((np.abs(differences) >= abs(found) - _HAIR).sum())
    return (larger + 1) / (permutations + 1)


@lru_cache(maxsize=1)
def _swaps(counts: tuple[int, ...], permutations: int, seed: int) -> list[Floats]:
    """Which subjects of each fold are swapped, ``(permutations, S)``: lines of a split share it."""
    generator = np.random.default_rng([seed, 1])
    return [generator.integers(0, 2, size=(permutations, n)).astype(np.float64) for n in counts]
