"""Paired comparisons of two models: differences by hand, and error rates in simulated sets."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.special import expit
from simulated import (
    ALL_IMAGES,
    HEM_IMAGES,
    TEST_FOLDS,
    Images,
    simulate,
    three_folds,
    true_auroc,
    unequal,
)
from sklearn.metrics import average_precision_score, roc_auc_score

from leuk.metrics.classification import Sample
from leuk.metrics.comparison import Difference, holm, paired_difference

Gaps = tuple[float, float]


def differences(
    count: int, gaps: Gaps, seeds: int = 1, luck: float = 0.0, metric: str = "auroc"
) -> list[Difference]:
    """Compare two models in many simulated experiments of three folds."""
    generator = np.random.default_rng(7)
    return [
        paired_difference(
            *three_folds(generator, gaps, seeds, luck), metric, draws=100, permutations=100
        )
        for _ in range(count)
    ]


def rejected(found: list[Difference]) -> float:
    return float(np.mean([one.p <= 0.05 for one in found]))


def covered(found: list[Difference], truth: float) -> float:
    return float(np.mean([one.low <= truth <= one.high for one in found]))


def auroc(sample: Sample) -> float:
    return float(roc_auc_score(sample.labels, sample.scores))


@pytest.mark.parametrize(
    ("metric", "seeds", "luck"),
    # Balanced accuracy at 0.5 does not depend on the confidence of a model.
    [("auroc", 1, 0.0), ("balanced_accuracy", 1, 0.0), ("auroc", 3, 0.4)],
)
def test_false_positive_rate(metric: str, seeds: int, luck: float) -> None:
    found = differences(100, (1.6, 1.6), seeds, luck, metric)
    assert rejected(found) <= 0.1
    assert covered(found, 0.0) >= 0.9


@pytest.mark.parametrize(
    ("metric", "folds"), [("auroc_patients", [(HEM_IMAGES, ALL_IMAGES)]), ("auroc", TEST_FOLDS)]
)
def test_false_positive_rate_with_unequal_patients(metric: str, folds: Sequence[Images]) -> None:
    """Swapping ranks instead of scores would call 9 to 12 % of these different."""
    generator = np.random.default_rng(7)
    found = []
    for _ in range(150):
        pairs = [
            unequal(generator, images, (1.6, 1.6), share=0.1, name=f"{fold}-")
            for fold, images in enumerate(folds)
        ]
        first, second = zip(*pairs, strict=True)
        found.append(paired_difference(first, second, metric, draws=100, permutations=100))
    assert rejected(found) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(found))
    assert all(one.p == max(one.p_swap, one.p_t) for one in found)
    assert {one.p_swap < one.p_t for one in found} == {False, True}


def test_power_at_the_detectable_difference() -> None:
    gaps = (1.3, 2.2)
    truth = true_auroc(gaps[1]) - true_auroc(gaps[0])
    found = differences(100, gaps)
    # The reported minimum detectable difference (80 % power) is slightly larger than this.
    assert truth == pytest.approx(np.mean([one.detectable for one in found]), rel=0.2)
    assert 0.6 <= rejected(found) <= 0.95
    assert covered(found, truth) >= 0.9


def test_difference_is_second_model_minus_first() -> None:
    first, second = three_folds(np.random.default_rng(0), (1.0, 3.0))
    found = paired_difference(first, second)
    apart = [auroc(b) - auroc(a) for a, b in zip(first, second, strict=True)]
    assert found.difference == pytest.approx(np.mean(apart))
    assert 0 < found.low < found.difference < found.high
    assert found.p < 0.01
    assert (found.folds, found.runs) == (3, 3)
    back = paired_difference(second, first)
    assert (back.difference, back.low, back.high) == pytest.approx(
        (-found.difference, -found.high, -found.low)
    )


def test_seeds_are_averaged_before_folds() -> None:
    generator = np.random.default_rng(0)
    images = [20] * 4, [20] * 10
    three = unequal(generator, images, (1.0, 2.0), name="0-", seeds=3, luck=0.5)
    one = unequal(generator, images, (1.0, 2.0), name="1-")
    found = paired_difference([three[0], one[0], *three[1:3]], [three[3], one[1], *three[4:]])
    of_seeds = [auroc(b) - auroc(a) for a, b in zip(three[:3], three[3:], strict=True)]
    assert found.difference == pytest.approx(
        (np.mean(of_seeds) + auroc(one[1]) - auroc(one[0])) / 2
    )
    assert (found.folds, found.runs) == (2, 4)


IMAGES = (13, 5, 5, 4, 3)


def auroc_patients(labels: np.ndarray, scores: np.ndarray) -> float:
    """AUROC by patient of five patients, the first with thirteen images."""
    weights = 1 / np.repeat(IMAGES, IMAGES)
    return float(roc_auc_score(labels, scores, sample_weight=weights))


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
        [Sample(one, labels, names)], [Sample(other, labels, names)], metric, permutations=10_000
    )
    assert difference.difference == pytest.approx(found[0], abs=1e-6)
    assert difference.p_swap == pytest.approx(exact, abs=0.02)


def test_every_metric_is_compared_at_each_model_s_own_threshold() -> None:
    first, second = three_folds(np.random.default_rng(0), (1.6, 1.6))
    cuts = [({"youden": 0.4}, {"youden": 0.7})] * 3
    found = paired_difference(first, second, "sensitivity@youden", cuts, draws=50, permutations=50)
    expected = [
        np.mean(b.scores[b.labels == 1] >= 0.7) - np.mean(a.scores[a.labels == 1] >= 0.4)
        for a, b in zip(first, second, strict=True)
    ]
    assert found.difference == pytest.approx(np.mean(expected))
    with pytest.raises(ValueError, match="no metric kappa"):
        paired_difference(first, second, "kappa")


def test_a_single_patient_of_a_class_excludes_no_difference() -> None:
    one, other = (simulate(np.random.default_rng(seed), 1, 9, 15, 1.6) for seed in (0, 1))
    found = paired_difference([one], [other], draws=50, permutations=50)
    assert (found.low, found.high, found.detectable, found.p) == (-1, 1, 1, 1)


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
    assert holm([]) == []
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        holm([0.2, float("nan")])
