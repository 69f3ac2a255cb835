"""Thresholds from resampled validation patients."""

import numpy as np
import pytest
from scipy.special import expit

from leuk.metrics.classification import all_metrics
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


def test_chosen_thresholds_are_the_best() -> None:
    scores, labels, _ = validation(0)
    scores = scores.round(2)
    once = np.ones((1, len(labels)))

    def at(threshold: float) -> dict[str, float]:
        return all_metrics(scores, labels, {"default": threshold})

    (youden,) = youden_threshold(scores, labels, once)
    best = max(at(score)["balanced_accuracy"] for score in set(scores))
    assert at(youden)["balanced_accuracy"] == pytest.approx(best)
    (sensitive,) = sensitivity_threshold(scores, labels, once)
    assert at(sensitive)["sensitivity"] >= 0.95 - 1e-6
    assert at(scores[scores > sensitive].min())["sensitivity"] < 0.95
    # 19 of 20 leukemic images are 0.95 of them, despite rounding.
    known = np.append(np.linspace(0.5, 0.69, 20), 0.1), np.repeat([1, 0], [20, 1]), np.ones((1, 21))
    assert sensitivity_threshold(*known) == pytest.approx(0.51)
    assert sensitivity_threshold(*known, wanted=1.0) == pytest.approx(0.5)


@pytest.mark.parametrize("rule", [youden_threshold, sensitivity_threshold])
def test_weights_equal_copies(rule: type) -> None:
    scores, labels, patients = validation(0, images=5)
    weights = np.array([1, 0, 2, 3, 1, 2, 0, 1, 4, 1], np.float64)[patients]
    copied = np.repeat(np.arange(len(scores)), weights.astype(int))
    (weighed,) = rule(scores, labels, weights[None])
    (expected,) = rule(scores[copied], labels[copied], np.ones((1, len(copied))))
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
    scores, labels, patients = validation(1, between=1.5)
    drawn = resampled_thresholds(scores, labels, patients)
    chosen = choose_thresholds(scores, labels, patients)
    medians = {name: np.median(drawn[name]) for name in ("youden", "sensitivity95")}
    assert list(chosen.items()) == [("default", 0.5), *medians.items()]
    assert chosen == choose_thresholds(scores, labels, patients.astype(str))
    widths = []
    for names in (patients, np.arange(len(labels))):
        intervals = threshold_intervals(scores, labels, names)
        widths.append(np.diff(intervals["sensitivity95"])[0])
        assert all(low <= high for low, high in intervals.values())
    assert widths[0] > 1.5 * widths[1]
    for name, (low, high) in threshold_intervals(scores, labels, patients).items():
        assert low <= chosen[name] <= high


def test_few_effective_patients_are_warned_of() -> None:
    _, labels, patients = validation(0, healthy=3)
    assert few_patients(labels, patients) is None
    # (60 + 30) ** 2 / (60 ** 2 + 30 ** 2)
    warning = few_patients(labels, np.where(patients == 1, 0, patients))
    assert "only 1.8 effective healthy subjects" in str(warning)


def test_every_image_needs_a_patient_and_both_classes() -> None:
    scores, labels, patients = validation(0)
    with pytest.raises(ValueError, match="300 images but 299 subjects"):
        choose_thresholds(scores, labels, patients[1:])
    with pytest.raises(ValueError, match="both classes are needed"):
        choose_thresholds(scores, np.zeros_like(labels), patients)
