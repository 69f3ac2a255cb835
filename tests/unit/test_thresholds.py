"""Thresholds from resampled validation patients."""

import numpy as np
import pytest
from scipy.special import expit

from leuk.metrics.thresholds import (
    choose_thresholds,
    few_patients,
    resampled_thresholds,
    sensitivity_threshold,
    threshold_intervals,
    youden_threshold,
)


def validation(
    seed: int, healthy: int = 4, leukemic: int = 6, images: int = 30, between: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels and patients that differ from each other by ``between`` log-odds."""
    generator = np.random.default_rng(seed)
    patients = np.repeat(np.arange(healthy + leukemic), images)
    labels = (patients >= healthy).astype(np.int64)
    shift = generator.normal(0, between, healthy + leukemic)[patients]
    noise = generator.normal(0, 1, len(labels))
    return expit(3 * (labels - 0.5) + shift + noise), labels, patients


def test_weights_equal_copies() -> None:
    scores, labels, patients = validation(0, images=5)
    weights = np.array([1, 0, 2, 3, 1, 2, 0, 1, 4, 1], np.float64)[patients]
    copied = np.repeat(np.arange(len(scores)), weights.astype(int))
    once = np.ones((1, len(copied)))
    for rule in (youden_threshold, sensitivity_threshold):
        (weighed,) = rule(scores, labels, weights[None])
        (expected,) = rule(scores[copied], labels[copied], once)
        assert weighed == expected


def test_resamples_hold_whole_patients_of_both_classes() -> None:
    """With one score per patient, every threshold is a patient's score, or 1."""
    scores = np.repeat([0.1, 0.3, 0.6, 0.4, 0.7, 0.9], 10)
    labels = np.repeat([0, 0, 0, 1, 1, 1], 10)
    drawn = resampled_thresholds(scores, labels, np.repeat(list("abcdef"), 10))
    assert set(drawn["youden"]) <= {0.4, 0.6, 0.7, 0.9, 1.0}
    assert len(set(drawn["youden"])) > 1
    # Resampled images, not patients, would include a leukemic one at 0.4 in nearly every draw.
    assert (drawn["sensitivity95"] > 0.4).mean() > 0.2


def test_threshold_is_the_median_with_an_interval_by_patient() -> None:
    scores, labels, patients = validation(1)
    drawn = resampled_thresholds(scores, labels, patients)
    chosen = choose_thresholds(scores, labels, patients)
    assert chosen == {
        "default": 0.5,
        "youden": np.median(drawn["youden"]),
        "sensitivity95": np.median(drawn["sensitivity95"]),
    }
    assert chosen == choose_thresholds(scores, labels, patients.astype(str))
    for name, (low, high) in threshold_intervals(scores, labels, patients).items():
        assert low <= chosen[name] <= high


def test_intervals_by_patient_are_wider_than_by_image() -> None:
    widths = np.array(
        [
            [
                np.diff(threshold_intervals(scores, labels, names)["sensitivity95"])[0]
                for names in (patients, np.arange(len(labels)))
            ]
            for scores, labels, patients in (validation(seed, between=1.5) for seed in range(5))
        ]
    )
    assert widths[:, 0].mean() > 1.5 * widths[:, 1].mean()


def test_few_effective_patients_are_warned_of() -> None:
    _, labels, patients = validation(0, healthy=3)
    assert few_patients(labels, patients) is None
    uneven = np.where(patients == 1, 0, patients)
    warning = few_patients(labels, uneven)
    assert warning is not None
    # (60 + 30) ** 2 / (60 ** 2 + 30 ** 2)
    assert "only 1.8 effective healthy subjects" in warning


def test_every_image_needs_a_patient() -> None:
    scores, labels, patients = validation(0)
    with pytest.raises(ValueError, match="300 images but 299 subjects"):
        choose_thresholds(scores, labels, patients[1:])
