"""Referral band: referred images, and guaranteed and achieved accuracy on the others."""

import numpy as np
import pytest
from scipy.special import expit

from leuk.metrics.classification import Sample
from leuk.metrics.referral import Band, achieved, choose_band, referral_record

BELOW_HALF = 0.5


def sample_of(
    scores: np.ndarray, labels: np.ndarray, patients: np.ndarray, calibrated: bool = True
) -> Sample:
    return Sample(scores, labels, patients.astype(str), scores if calibrated else None)


def drawn(
    seed: int, healthy: int = 20, leukemic: int = 30, images: int = 30, between: float = 0.5
) -> Sample:
    """Images of patients that differ from each other by ``between`` log-odds."""
    generator = np.random.default_rng(seed)
    patients = np.repeat(np.arange(healthy + leukemic), images)
    labels = (patients >= healthy).astype(np.int64)
    shift = generator.normal(0, between, healthy + leukemic)[patients]
    scores = expit(4 * (labels - 0.5) + shift + generator.normal(0, 1.2, len(labels)))
    return sample_of(scores, labels, patients)


def kept_right(sample: Sample, band: Band) -> list[float]:
    """Observed share correct of the images called healthy and leukemic that are not referred."""
    called = sample.scores >= BELOW_HALF
    kept = ~band.refers(sample.scores, called)
    truth = sample.labels == 1
    return [float((truth == side)[kept & (called == side)].mean()) for side in (False, True)]


def test_bound_is_below_the_observed_share() -> None:
    sample = drawn(0)
    band = choose_band(sample, 0.5, 0.9)
    assert band.low is not None
    assert band.high is not None
    assert band.low <= 0.5 <= band.high
    for observed, bound in zip(
        kept_right(sample, band), (band.healthy_bound, band.leukemic_bound), strict=True
    ):
        assert bound is not None
        assert 0.9 <= bound < observed
    assert band.reason == ""
    kept = ~band.refers(sample.scores, sample.scores >= 0.5)
    assert band.referred == pytest.approx(1 - kept.mean())


def test_each_of_five_starts_has_a_fifth_of_the_level() -> None:
    """Flawless decisions of 20 patients with 60 scores: a bound of (0.05 / 5) ** (1 / 20)."""
    scores = np.tile(np.linspace(0.6, 0.99, 60), 20)
    patients = np.repeat(np.arange(40), 60)
    labels = (patients < 20).astype(np.int64)
    band = choose_band(sample_of(np.append(scores, 1 - scores), labels, patients), 0.5, 0.75)
    assert band.high == 0.6
    assert band.leukemic_bound == pytest.approx(0.01 ** (1 / 20))
    assert band.healthy_bound == pytest.approx(0.01 ** (1 / 20))


def test_sequence_of_cuts_ends_at_the_first_failure() -> None:
    """Images called leukemic of 70 patients, one score each: all correct but those at 0.55 and 0.75
    of which half are wrong. The cut is reached from a start above it, not past a failure."""
    tried = np.linspace(0.51, 0.99, 40)
    scores = np.tile(tried, 70)
    labels = np.ones(len(scores), np.int64)
    patients = np.repeat(np.arange(70), 40)
    spoiled = np.isin(scores, tried[:10]) & (patients % 2 == 0)
    healthy = np.full(70 * 5, 0.1)
    sample = sample_of(
        np.concatenate([scores, healthy]),
        np.concatenate([np.where(spoiled, 0, labels), np.zeros(350, np.int64)]),
        np.concatenate([patients + 100 * spoiled, np.repeat(np.arange(200, 270), 5)]),
    )
    band = choose_band(sample, 0.5, 0.9)
    assert band.high is not None
    kept = sample.scores >= band.high
    assert (sample.labels[kept] == 1).mean() >= 0.9
    assert band.high <= tried[10]


@pytest.mark.parametrize(("healthy", "leukemic"), [(2, 30), (30, 2)])
def test_too_few_patients_give_no_guarantee(healthy: int, leukemic: int) -> None:
    sample = drawn(0, healthy, leukemic)
    band = choose_band(sample, 0.5, 0.6)
    assert (band.low, band.high, band.referred, band.right) == (None, None, 1.0, None)
    assert "too few patients (2.0 effective" in band.message
    assert "Every image is referred" in band.message
    assert band.refers(sample.scores, sample.scores >= 0.5).all()


def test_bound_of_flawless_decisions_depends_on_patients() -> None:
    """Without an error the spread is 0; 0.05 ** (1 / 13) = 0.794 and 0.05 ** (1 / 14) = 0.807."""
    for patients, offered in ((13, False), (14, True)):
        labels = np.repeat([0, 1], 20 * patients)
        scores = np.where(labels == 1, 0.9, 0.1)
        names = np.repeat(np.arange(2 * patients), 20)
        band = choose_band(sample_of(scores, labels, names), 0.5, 0.8)
        assert (band.low is not None, band.high is not None) == (offered, offered)
        assert band.healthy_bound == pytest.approx(0.05 ** (1 / patients))
        if not offered:
            assert "of images called healthy at least 79.4% are correct" in band.message


def test_side_without_a_cut_is_referred_completely() -> None:
    labels = np.repeat([1, 0, 1], [40 * 20, 40 * 20, 20 * 20])
    scores = np.where(np.arange(len(labels)) < 800, 0.9, 0.2)
    band = choose_band(sample_of(scores, labels, np.arange(len(labels)) // 20), 0.5, 0.9)
    assert (band.low, band.high) == (None, 0.9)
    assert band.refers(scores, scores >= 0.5).tolist() == [False] * 800 + [True] * 1200
    assert "all images called healthy" in band.message
    assert "of images called healthy at least" in band.message
    assert "60% are referred and 100.0% of the other decisions are correct" in band.message


def test_no_image_called_leukemic() -> None:
    labels = np.repeat([0, 1], [95 * 20, 5 * 20])
    scores = np.full(len(labels), 0.05)
    band = choose_band(sample_of(scores, labels, np.arange(len(labels)) // 20), 0.5, 0.6)
    assert (band.high, band.leukemic_bound) == (None, None)
    assert band.referred == 0.0
    assert "no image is called leukemic" in band.reason


def test_achieved_shares_by_hand() -> None:
    band = Band(0.9, 0.3, 0.7, 0.0, None)
    scores = np.array([0.1, 0.1, 0.1, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.9])
    labels = np.array([0, 0, 1, 0, 0, 1, 1, 1, 0, 1])
    patients = np.array([0, 0, 2, 1, 1, 3, 2, 3, 0, 3])
    found = achieved(sample_of(scores, labels, patients), 0.5, band)
    assert (found.referred.value, found.referred.images) == (pytest.approx(0.2), 10)
    assert (found.healthy.value, found.healthy.images) == (pytest.approx(0.75), 4)
    assert (found.leukemic.value, found.leukemic.images) == (pytest.approx(0.75), 4)
    # Patients 0, 0, 2 and 1; and 2, 3, 0 and 3.
    assert found.healthy.patients == pytest.approx(16 / 6)
    assert found.leukemic.patients == pytest.approx(16 / 6)
    for share in (found.referred, found.healthy, found.leukemic):
        assert share.value is not None
        assert share.low is not None
        assert share.high is not None
        assert share.low < share.value < share.high
    assert "20% of the images are referred" in found.message
    assert "of 4 images called healthy and not referred 75.0% [" in found.message


def test_record_holds_the_shares_of_the_test_stage() -> None:
    val, test = drawn(3), drawn(4, 40, 60)
    found = referral_record(val, test, 0.5, "youden")
    band = choose_band(val, 0.5)
    assert found["threshold"] == "youden"
    assert (found["band"]["aim"], found["band"]["high"]) == (0.95, band.high)
    right = achieved(test, 0.5, band)
    assert found["test"]["leukemic"]["value"] == right.leukemic.value
    assert found["test"]["referred"]["value"] == pytest.approx(
        band.refers(test.scores, test.scores >= 0.5).mean()
    )


def test_aims_out_of_range_and_uncalibrated_scores_are_refused() -> None:
    sample = drawn(0)
    for aim in (0.5, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"between 0\.5 and 1"):
            choose_band(sample, 0.5, aim)
    bare = sample_of(sample.scores, sample.labels, sample.codes, calibrated=False)
    with pytest.raises(ValueError, match="calibrated"):
        choose_band(bare, 0.5)
    with pytest.raises(ValueError, match="calibrated"):
        achieved(bare, 0.5, Band(0.9, 0.3, 0.7, 0.0, None))
