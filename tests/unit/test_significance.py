import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from simulated import (
    ALL_IMAGES,
    HEM_IMAGES,
    PAIR_NOISE,
    TEST_FOLDS,
    three_folds,
    true_auroc,
    two_models,
    unequal,
)
from sklearn.metrics import average_precision_score, roc_auc_score

from leuk.metrics.bootstrap import Sample
from leuk.metrics.classification import all_metrics
from leuk.metrics.comparison import Difference, holm, paired_difference

Gaps = tuple[float, float]


def differences(
    count: int, gaps: Gaps, seeds: int = 1, luck: float = 0.0, metric: str = "auroc"
) -> list[Difference]:
    """Compare two models in many simulated experiments of three folds."""
    generator = np.random.default_rng(7)
    return [
        paired_difference(
            *three_folds(generator, gaps, seeds, luck), metric, draws=200, permutations=200
        )
        for _ in range(count)
    ]


def rejected(found: list[Difference]) -> float:
    return float(np.mean([one.p <= 0.05 for one in found]))


def covered(found: list[Difference], truth: float) -> float:
    return float(np.mean([one.low <= truth <= one.high for one in found]))


@pytest.mark.parametrize("metric", ["auroc", "balanced_accuracy"])
def test_false_positive_rate(metric: str) -> None:
    # Balanced accuracy at 0.5 does not depend on the confidence of a model.
    found = differences(300, (1.6, 1.6), metric=metric)
    assert 0.01 <= rejected(found) <= 0.08
    assert 0.91 <= covered(found, 0.0) <= 0.99


@pytest.mark.parametrize("metric", ["auroc", "auroc_patients"])
@pytest.mark.parametrize("folds", [[(HEM_IMAGES, ALL_IMAGES)], TEST_FOLDS])
def test_false_positive_rate_with_unequal_patients(
    metric: str, folds: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> None:
    """Swapping ranks instead of scores would call 9 to 12 % of these different."""
    generator = np.random.default_rng(7)
    found = []
    for _ in range(250):
        pairs = [
            unequal(generator, images, (1.6, 1.6), share=0.1, name=f"{fold}-")
            for fold, images in enumerate(folds)
        ]
        first, second = zip(*pairs, strict=True)
        found.append(paired_difference(first, second, metric, draws=150, permutations=150))
    assert rejected(found) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(found))
    assert all(one.p == max(one.p_swap, one.p_t) for one in found)
    assert any(one.p_swap < one.p_t for one in found)
    assert any(one.p_swap > one.p_t for one in found)


def test_false_positive_rate_with_lucky_seeds() -> None:
    found = differences(100, (1.6, 1.6), seeds=3, luck=0.4)
    assert rejected(found) <= 0.08
    assert covered(found, 0.0) >= 0.91


def test_testing_over_images_has_too_many_false_positives() -> None:
    generator = np.random.default_rng(7)
    p = []
    for _ in range(40):
        ((one, other),) = two_models(generator, (6, 15), (1.6, 1.6))
        by_cell = [replace(s, subjects=np.arange(len(s))) for s in (one, other)]
        p.append(paired_difference([by_cell[0]], [by_cell[1]], draws=2, permutations=100).p)
    assert np.mean(np.array(p) <= 0.05) > 0.2


def test_power_at_the_detectable_difference() -> None:
    gaps = (1.3, 2.2)
    truth = true_auroc(gaps[1], PAIR_NOISE) - true_auroc(gaps[0], PAIR_NOISE)
    found = differences(150, gaps)
    # The reported minimum detectable difference (80 % power) is slightly larger than this.
    assert truth == pytest.approx(np.mean([one.detectable for one in found]), rel=0.15)
    assert 0.65 <= rejected(found) <= 0.95
    assert 0.91 <= covered(found, truth) <= 0.99


def test_difference_is_second_model_minus_first() -> None:
    first, second = three_folds(np.random.default_rng(0), (1.0, 3.0))
    found = paired_difference(first, second)
    apart = [
        all_metrics(b.scores, b.labels, {})["auroc"] - all_metrics(a.scores, a.labels, {})["auroc"]
        for a, b in zip(first, second, strict=True)
    ]
    assert found.difference == pytest.approx(np.mean(apart), abs=1e-6)
    assert 0 < found.low < found.difference < found.high
    assert found.p < 0.01
    assert (found.folds, found.runs) == (3, 3)
    back = paired_difference(second, first)
    assert back.difference == pytest.approx(-found.difference)
    assert back == replace(
        found,
        difference=back.difference,
        low=back.low,
        high=back.high,
        p=back.p,
        p_swap=back.p_swap,
    )


def test_seeds_are_averaged_before_folds() -> None:
    generator = np.random.default_rng(0)
    three = two_models(generator, (4, 10), (1.0, 2.0), name="0-", seeds=3, luck=0.5)
    one = two_models(generator, (4, 10), (1.0, 2.0), name="1-")
    runs = [three[0], *one, *three[1:]]
    found = paired_difference([a for a, _ in runs], [b for _, b in runs])

    def apart(a: Sample, b: Sample) -> float:
        figures = [all_metrics(s.scores, s.labels, {})["auroc"] for s in (a, b)]
        return figures[1] - figures[0]

    expected = (np.mean([apart(*pair) for pair in three]) + apart(*one[0])) / 2
    assert found.difference == pytest.approx(expected)
    assert (found.folds, found.runs) == (2, 4)


def auroc_patients(labels: np.ndarray, scores: np.ndarray) -> float:
    """AUROC by patient of five patients, the first with thirteen images."""
    weights = 1 / np.repeat(IMAGES, IMAGES)
    return float(roc_auc_score(labels, scores, sample_weight=weights))


IMAGES = (13, 5, 5, 4, 3)


@pytest.mark.parametrize(
    ("metric", "figure"),
    [
        ("auroc", roc_auc_score),
        ("auroc_patients", auroc_patients),
        ("auprc", average_precision_score),
    ],
)
def test_p_is_the_share_of_all_swaps(metric: str, figure: Callable[..., float]) -> None:
    """Five subjects can be swapped in 32 ways, which are enumerated."""
    generator = np.random.default_rng(2)
    subjects = np.repeat(np.arange(5), IMAGES)
    labels = (subjects >= 2).astype(np.int64)
    noise = generator.normal(size=(2, 30)) + np.array([[0.3], [1.2]]) * labels
    one, other = expit(noise[0]), expit(2 * noise[1])
    found = []
    for swap in itertools.product([False, True], repeat=5):
        swapped = np.asarray(swap)[subjects]
        first, second = np.where(swapped, other, one), np.where(swapped, one, other)
        found.append(figure(labels, second) - figure(labels, first))
    exact = np.mean(np.abs(found) >= abs(found[0]) - 1e-9)
    names = subjects.astype(str)
    difference = paired_difference(
        [Sample(one, labels, names)], [Sample(other, labels, names)], metric, permutations=20_000
    )
    assert difference.difference == pytest.approx(found[0], abs=1e-6)
    assert difference.p_swap == pytest.approx(exact, abs=0.015)


@pytest.mark.parametrize("metric", ["auroc", "auprc"])
def test_confidence_does_not_affect_ranking_metrics(metric: str) -> None:
    runs, _ = three_folds(np.random.default_rng(0), (1.6, 1.6))
    surer = [replace(run, scores=run.scores**3) for run in runs]
    found = paired_difference(runs, surer, metric, draws=50, permutations=50)
    assert found.difference == pytest.approx(0, abs=1e-12)
    assert found.p == 1


def test_every_metric_is_compared_at_each_model_s_own_threshold() -> None:
    first, second = three_folds(np.random.default_rng(0), (1.6, 1.6))
    cuts = [({"youden": 0.4}, {"youden": 0.7})] * 3
    found = paired_difference(first, second, "sensitivity@youden", cuts, draws=50, permutations=50)
    expected = [
        np.mean(b.scores[b.labels == 1] >= 0.7) - np.mean(a.scores[a.labels == 1] >= 0.4)
        for a, b in zip(first, second, strict=True)
    ]
    assert found.difference == pytest.approx(np.mean(expected))
    brier = paired_difference(first, second, "brier", draws=50, permutations=50)
    assert brier.low < brier.difference < brier.high
    with pytest.raises(ValueError, match="no metric kappa"):
        paired_difference(first, second, "kappa")


def test_runs_must_match() -> None:
    first, second = three_folds(np.random.default_rng(0), (1.6, 1.6))
    with pytest.raises(ValueError, match="one to one, found 3 and 2"):
        paired_difference(first, second[:2])
    with pytest.raises(
        ValueError, match="run 0: the two models were not tested on the same images"
    ):
        paired_difference(first, [second[1], second[0], second[2]])


def test_holm_on_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        holm([0.2, float("nan")])
