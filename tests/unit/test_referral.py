"""The band of scores that is left to an expert."""

import numpy as np
import pytest

from leuk.evaluate.referral import Band, choose_band

AIM = 0.9


def planted(seed: int = 0, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated scores: a cell is leukemic as often as its score says."""
    generator = np.random.default_rng(seed)
    scores = generator.random(count).round(2)
    return scores, (generator.random(count) < scores).astype(np.int64)


@pytest.mark.parametrize("seed", range(5))
def test_both_decisions_outside_the_band_reach_the_aim(seed: int) -> None:
    scores, labels = planted(seed)
    leukemic = scores >= 0.5
    band = choose_band(scores, labels, leukemic, AIM)
    kept = ~band.refers(scores, leukemic)
    for called in (True, False):
        of_these = kept & (leukemic == called)
        assert of_these.sum() >= 10
        assert (labels[of_these] == called).mean() >= AIM
    assert band.referred == pytest.approx(1 - kept.mean())
    assert band.right == pytest.approx((labels == leukemic)[kept].mean())


@pytest.mark.parametrize("seed", range(5))
def test_no_smaller_band_does(seed: int) -> None:
    scores, labels = planted(seed)
    leukemic = scores >= 0.5
    band = choose_band(scores, labels, leukemic, AIM)
    assert band.low is not None
    assert band.high is not None
    for cut in np.unique(scores):
        above, below = scores >= cut, scores <= cut
        if 0.5 <= cut < band.high:
            assert labels[above].mean() < AIM
        if band.low <= cut < 0.5:
            assert (1 - labels[below]).mean() < AIM


def test_there_is_nothing_to_refer_where_all_decisions_are_right() -> None:
    labels = np.repeat([0, 1], 20)
    scores = np.where(labels == 1, 0.9, 0.1)
    band = choose_band(scores, labels, scores >= 0.5, 0.95)
    assert (band.referred, band.right) == (0.0, 1.0)
    assert band.refers(np.array([0.2, 0.8]), np.array([False, True])).tolist() == [True, True]


def test_a_side_that_does_not_reach_the_aim_is_referred_whole() -> None:
    labels = np.array([1] * 40 + [0] * 20 + [1] * 20)
    scores = np.array([0.9] * 40 + [0.2] * 40)
    band = choose_band(scores, labels, scores >= 0.5, 0.95)
    assert (band.low, band.high) == (None, 0.9)
    assert band.refers(scores, scores >= 0.5).tolist() == [False] * 40 + [True] * 40
    assert "all cells called healthy, as no part of them reaches it" in band.said
    assert "50% are referred and 100.0% of the other decisions are right" in band.said


@pytest.mark.parametrize("count", [10, 19])
def test_a_few_cells_reach_no_aim(count: int) -> None:
    labels = np.repeat([0, 1], count)
    scores = np.where(labels == 1, 0.9, 0.1)
    band = choose_band(scores, labels, scores >= 0.5, 0.95)
    assert band == Band(0.95, None, None, 1.0, None)
    assert "No band reaches" in band.said


def test_nobody_called_leukemic() -> None:
    labels = np.array([0] * 95 + [1] * 5)
    scores = np.full(100, 0.05)
    band = choose_band(scores, labels, scores >= 0.5, 0.95)
    assert band.high is None
    assert band.referred == 0.0


@pytest.mark.parametrize("aim", [0.5, 1.0, float("nan")])
def test_an_aim_out_of_range_is_refused(aim: float) -> None:
    scores, labels = planted()
    with pytest.raises(ValueError, match=r"between 0\.5 and 1"):
        choose_band(scores, labels, scores >= 0.5, aim)
