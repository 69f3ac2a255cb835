"""Tests of patient-level evaluation on planted patients."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from leuk.metrics.classification import Sample
from leuk.metrics.comparison import paired_difference
from leuk.metrics.patients import (
    auroc,
    auroc_interval,
    by_patient,
    image_count_curve,
    mean_interval,
    patient_metrics,
    patient_threshold,
    share_interval,
)


def sample(*rows: tuple[str, int, float]) -> Sample:
    names, labels, scores = zip(*rows, strict=True)
    return Sample(np.array(scores), np.array(labels), np.array(names))


FOUR = sample(
    ("b", 1, 0.9), ("a", 0, 0.1), ("b", 1, 0.5), ("c", 1, 0.4), ("a", 0, 0.7), ("a", 0, 0.1),
    ("d", 0, 0.6),
)  # fmt: skip


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        # Odds 9 and 1 have the geometric mean 3; odds 1/9, 7/3, 1/9 that of (7/243)^(1/3).
        ("mean_logit", [1 / (1 + (243 / 7) ** (1 / 3)), 0.75, 0.4, 0.6]),
        ("median", [0.1, 0.7, 0.4, 0.6]),
        ("mean_probability", [0.3, 0.7, 0.4, 0.6]),
        ("share_above", [1 / 3, 1.0, 0.0, 1.0]),
    ],
)
def test_a_patient_has_one_score_from_all_images(score: str, expected: list[float]) -> None:
    patients = by_patient(FOUR, score)
    assert patients.subjects.tolist() == ["a", "b", "c", "d"]
    assert patients.labels.tolist() == [0, 1, 1, 0]
    assert patients.scores == pytest.approx(expected)


def test_calibrated_scores_are_used_where_they_exist() -> None:
    calibrated = Sample(FOUR.scores, FOUR.labels, FOUR.subjects, 1 - FOUR.scores)
    assert by_patient(calibrated, "median").scores == pytest.approx([0.9, 0.3, 0.6, 0.4])


def test_a_patient_with_images_of_both_classes_is_leukemic() -> None:
    patients = by_patient(sample(("x", 0, 0.2), ("x", 1, 0.8), ("y", 0, 0.1)))
    assert patients.labels.tolist() == [1, 0]


def test_scores_of_0_and_1_stay_finite() -> None:
    patients = by_patient(sample(("x", 1, 1.0), ("x", 1, 1.0), ("y", 0, 0.0), ("y", 0, 1.0)))
    assert patients.scores == pytest.approx([1, 0.5], abs=1e-5)


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(ValueError, match="no patient score best; choose from mean_logit"):
        by_patient(FOUR, "best")


def test_auroc_counts_ties_half() -> None:
    generator = np.random.default_rng(0)
    scores, labels = generator.integers(0, 5, 40) / 4, generator.integers(0, 2, 40)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert np.isnan(auroc(scores, np.ones(40, np.int64)))


def test_a_perfect_auroc_of_few_patients_has_a_wide_interval() -> None:
    low, high = auroc_interval(1.0, 9, 3)
    assert high == 1
    assert 0.5 < low < 0.8
    assert auroc_interval(0.0, 9, 3) == pytest.approx((0, 1 - low), abs=1e-6)
    low, high = auroc_interval(0.8, 24, 12)
    assert 0.55 < low < 0.8 < high < 0.95


def test_share_intervals_are_wilsons() -> None:
    assert share_interval(3, 4) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert share_interval(0, 0) == (0, 1)
    both = share_interval(8, 10), share_interval(1, 4)
    low, high = mean_interval((0.8, 0.25), both)
    assert both[1][0] < low < 0.525 < high < both[0][1]


@pytest.mark.parametrize(("leukemic", "healthy"), [(24, 12), (9, 3)])
@pytest.mark.parametrize("true", [0.6, 0.9, 0.97])
def test_intervals_cover_the_truth_with_a_dozen_patients(
    leukemic: int, healthy: int, true: float
) -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([1, 0], [leukemic, healthy])
    shift = np.sqrt(2) * norm.ppf(true)
    covered = np.zeros(2)
    runs = 400
    for _ in range(runs):
        scores = generator.normal(shift * labels)
        # A threshold of 0 gives the sensitivity P(N(shift) >= 0) and the specificity 0.5.
        called = scores >= 0
        found = patient_metrics(scores, labels, called, np.ones(len(labels), np.int64))
        truth = {"auroc": true, "balanced_accuracy": (norm.cdf(shift) + 0.5) / 2}
        for position, (name, value) in enumerate(truth.items()):
            low, high = found.intervals[name]
            covered[position] += low <= value <= high
    assert (covered / runs > 0.92).all(), covered / runs


def test_metrics_of_patients() -> None:
    scores, labels = np.array([0.9, 0.2, 0.4, 0.1]), np.array([1, 1, 0, 0])
    found = patient_metrics(scores, labels, scores >= 0.3, np.array([1, 20, 3, 3]))
    assert found.values == {
        "auroc": 0.75, "balanced_accuracy": 0.5, "sensitivity": 0.5, "specificity": 0.5
    }  # fmt: skip
    assert (found.leukemic, found.healthy, found.images) == (2, 2, (1, 3.0, 20))
    assert found.intervals["sensitivity"] == share_interval(1, 2)


def test_the_threshold_is_in_the_middle_of_the_gap() -> None:
    assert patient_threshold(np.array([0.8, 0.9, 0.2, 0.1]), np.array([1, 1, 0, 0])) == 0.5
    assert patient_threshold(np.array([0.8, 0.3, 0.2]), np.array([1, 0, 0])) == pytest.approx(0.55)
    assert patient_threshold(np.array([0.8, 0.3]), np.array([1, 1])) == 0.5


def test_more_images_per_patient_average_out_the_noise_of_images() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(2), 20)
    rows = [
        (f"p{n}", int(label), float(np.clip(generator.normal(0.4 + 0.2 * label, 0.2), 0, 1)))
        for n, label in enumerate(labels)
        for _ in range(1 if n == 0 else 30)
    ]
    curve = image_count_curve(sample(*rows), 0.5, draws=20)
    assert list(curve) == [1, 2, 5, 10, 20, 0]
    areas, errors = zip(*curve.values(), strict=True)
    assert areas[0] < 0.85 < areas[2] < areas[-1]
    assert errors[0] > 0.2 > errors[-1]
    patients = by_patient(sample(*rows))
    assert areas[-1] == auroc(patients.scores, patients.labels)
    assert curve == image_count_curve(sample(*rows), 0.5, draws=20)


def test_paired_comparisons_of_patients_keep_the_level() -> None:
    generator = np.random.default_rng(1)
    labels = np.repeat([1, 0], [24, 12])
    names = np.arange(36).astype(str)
    rejected = 0
    for _ in range(100):
        shared = generator.normal(1.5 * labels, 1)
        one, other = (
            Sample(expit(shared + generator.normal(0, 0.8, 36)), labels, names) for _ in range(2)
        )
        rejected += paired_difference([one], [other], draws=100, permutations=200).p <= 0.05
    assert rejected <= 7
