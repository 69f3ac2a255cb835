import numpy as np
import pytest

from leuk.metrics.calibration import (
    COOLEST,
    HOTTEST,
    apply_temperature,
    fit_temperature,
    reliability,
)


def test_temperature_of_two_by_hand() -> None:
    """Of scores 0.9 three quarters are leukemic: log 9 / T = log 3."""
    scores = np.repeat([0.9, 0.9, 0.1, 0.1], [75, 25, 75, 25])
    labels = np.repeat([1, 0, 0, 1], [75, 25, 75, 25])
    assert fit_temperature(scores, labels) == pytest.approx(2, rel=1e-4)
    assert apply_temperature(np.array([0.9, 0.1, 0.5]), 2) == pytest.approx([0.75, 0.25, 0.5])


def test_scores_of_exactly_0_and_1_are_allowed() -> None:
    scores, labels = np.array([0.0, 0.0, 1.0, 1.0, 0.3, 0.8]), np.array([0, 1, 1, 0, 0, 1])
    temperature = fit_temperature(scores, labels)
    assert 1 < temperature <= HOTTEST
    calibrated = apply_temperature(scores, temperature)
    assert np.isfinite(calibrated).all()
    assert 0 <= calibrated[0] < calibrated[4] < calibrated[5] < calibrated[2] <= 1


def test_temperatures_have_bounds() -> None:
    scores, apart = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])
    assert fit_temperature(scores, apart) == pytest.approx(COOLEST, rel=0.01)
    assert fit_temperature(scores, 1 - apart) == pytest.approx(HOTTEST, rel=0.01)
    with pytest.raises(ValueError, match="temperature=0: must be above 0"):
        apply_temperature(scores, 0)


def test_reliability_by_hand() -> None:
    """Fifteen bins of a fifteenth each; 0.3 is in the fifth, where one of two is leukemic."""
    found = reliability(np.array([0.3, 0.31, 0.99, 0.02]), np.array([1, 0, 1, 0]))
    assert found["low"].tolist() == pytest.approx([0, 4 / 15, 14 / 15])
    assert found["observed"].tolist() == [0, 0.5, 1]
    assert found["score"].tolist() == pytest.approx([0.02, 0.305, 0.99])
    assert found["count"].tolist() == [1, 2, 1]
    edge = reliability(np.array([0.2, 0.2]), np.array([1, 0]), bins=5)
    assert edge["low"].tolist() == pytest.approx([0.2])
