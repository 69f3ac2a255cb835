"""Intervals from resampled patients: by hand, and their coverage in simulated test sets."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from simulated import (
    ALL_IMAGES,
    HEM_IMAGES,
    TEST_FOLDS,
    Images,
    nine_patients,
    simulate,
    three_folds,
    true_auroc,
    true_recall,
    unequal,
)
from sklearn import metrics as oracle

from leuk.metrics.bootstrap import (
    Estimate,
    Fold,
    bootstrap_intervals,
    estimates,
    few_subjects,
    fold_mean,
    resamples,
)
from leuk.metrics.calibration import apply_temperature, fit_temperature
from leuk.metrics.classification import Sample, all_metrics

HALF = {"default": 0.5}
CUTS = {"default": 0.5, "youden": 0.62}


@pytest.mark.parametrize(
    ("folds", "share"),
    [
        ([(HEM_IMAGES, ALL_IMAGES)], 0.1),
        # Three healthy patients with 79, 2 and 2 images.
        ([TEST_FOLDS[0]], 0.1),
        ([([15] * 3, [15] * 20)], 1.0),
        ([([15] * 4, [15] * 10)] * 3, 1.0),
    ],
    ids=["pooled", "uneven", "three healthy patients", "three folds"],
)
def test_intervals_have_nominal_coverage(folds: list[Images], share: float) -> None:
    """The binomial error of 150 sets is 2 points."""
    truths = {
        f"{name}{end}": true_auroc(3.0) if name == "auroc" else true_recall(3.0)
        for name in ("auroc", "sensitivity", "specificity", "balanced_accuracy")
        for end in ("", "_patients")
    }
    generator = np.random.default_rng(0)
    hits: dict[str, list[bool]] = {name: [] for name in truths}
    for _ in range(150):
        samples = [
            unequal(generator, images, [3.0], share, f"{fold}-")[0]
            for fold, images in enumerate(folds)
        ]
        found = fold_mean([(sample, HALF) for sample in samples], draws=100)
        for name, truth in truths.items():
            _, low, high = found[name]
            assert low is not None
            assert high is not None
            hits[name].append(low <= truth <= high)
    shares = {name: np.mean(one) for name, one in hits.items()}
    assert all(share >= 0.91 for share in shares.values()), shares
    assert np.mean([*shares.values()]) <= 0.98, shares


def test_intervals_are_by_patient() -> None:
    sample = simulate(np.random.default_rng(0), 12, 30, 20, 1.6)
    widths = []
    for subjects in (sample.subjects, np.arange(len(sample))):
        intervals = bootstrap_intervals(replace(sample, subjects=subjects), HALF, draws=50)
        widths.append(np.array([np.diff(intervals[name])[0] for name in ("auroc", "accuracy")]))
    assert (widths[0] > 1.5 * widths[1]).all()


def estimate(
    values: np.ndarray,
    strata: Sequence[np.ndarray],
    images: np.ndarray | None = None,
    *,
    equal: bool = False,
    draws: int = 50,
    seed: int = 0,
) -> Estimate:
    """Estimate of the sum of weighted values, one per patient."""
    if images is None:
        images = np.ones(len(values), np.int64)
    fold = Fold(["run"], strata, images)
    (found,) = estimates([fold], lambda _, w: (w @ values)[None], draws, equal, seed)
    return found


def test_freedom_is_by_effective_subjects_unless_they_weigh_the_same() -> None:
    values, images = np.random.default_rng(0).normal(size=4), np.array([300, 100, 100, 100])
    for equal, freedom in ((False, 600**2 / (300**2 + 3 * 100**2) - 1), (True, 3)):
        found = estimate(values / 4, [np.arange(4)], images, equal=equal)
        assert found.freedom == pytest.approx(freedom)


def test_freedom_of_two_strata_is_that_of_welch() -> None:
    """Jackknife variances of means are s^2 / n; Welch and Satterthwaite weigh them by n - 1."""
    two, five = np.array([1.0, 10.0]), np.array([0.0, 2.0, 3.0, 7.0, 8.0])
    found = estimate(np.concatenate([two / 2, five / 5]), [np.arange(2), np.arange(2, 7)])
    a, b = two.var(ddof=1) / 2, five.var(ddof=1) / 5
    assert found.freedom == pytest.approx((a + b) ** 2 / (a**2 / 1 + b**2 / 4))


def test_freedom_is_at_most_that_of_patients_who_vary_alike() -> None:
    """Of 3 patients who happen to be alike and 9 who differ: shares of 3/4 and 1/4 of the variance,
    so that 1 / (0.75**2 / 2 + 0.25**2 / 8); 8 from the observed variances."""
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(0, 1e-4, 3) / 3, generator.normal(0, 1, 9) / 9])
    strata = [np.arange(3), np.arange(3, 12)]
    assert estimate(values, strata).freedom == pytest.approx(
        1 / (0.75**2 / 2 + 0.25**2 / 8), rel=1e-3
    )
    # A stratum without variance gets no share.
    values[:3] = 0
    assert estimate(values, strata).freedom == pytest.approx(8)


def test_resamples_keep_the_classes_and_the_mean_and_are_not_too_narrow() -> None:
    strata = [np.arange(4), np.arange(4, 5), np.arange(5, 15)]
    weights = resamples(strata, 15, 20_000, np.random.default_rng(0))
    for members in strata:
        np.testing.assert_allclose(weights[:, members].sum(axis=1), len(members))
    assert (weights[:, 4] == 1).all()
    values = np.random.default_rng(1).normal(size=10)
    spread = (weights[:, 5:] @ values / 10).var()
    assert spread == pytest.approx(values.var(ddof=1) / 10, rel=0.05)


def test_error_is_the_larger_of_bootstrap_and_jackknife() -> None:
    values, strata = np.array([0.0, 1.0, 3.0, 7.0]), [np.arange(4)]
    larger = set()
    for seed in range(20):
        drawn = resamples(strata, 4, 5, np.random.default_rng(seed)) @ values / 4
        # The jackknife of a mean is exact.
        spread, exact = drawn.std(ddof=1), values.std(ddof=1) / 2
        found = estimate(values / 4, strata, draws=5, seed=seed)
        assert found.error == pytest.approx(max(spread, exact))
        larger.add(spread > exact)
    assert larger == {False, True}


@pytest.fixture
def uneven() -> Sample:
    return nine_patients()


def test_every_metric_is_inside_its_interval(uneven: Sample) -> None:
    values = all_metrics(uneven.scores, uneven.labels, CUTS, uneven.calibrated, uneven.subjects)
    intervals = bootstrap_intervals(uneven, CUTS, draws=200)
    assert set(intervals) == set(values)
    for name, (low, high) in intervals.items():
        assert -1 <= low < values[name] < high <= 1, name
    assert intervals == bootstrap_intervals(uneven, CUTS, draws=200)


def test_flawless_metric_has_the_exact_interval() -> None:
    """Two healthy patients and leukemic ones with 10, 5 and 5 images, 2.7 effective patients."""
    subjects = np.array([0, 1, 1, *[2] * 10, *[3] * 5, *[4] * 5])
    labels = (subjects >= 2).astype(np.int64)
    sample = Sample(0.1 + 0.8 * labels, labels, subjects)
    intervals = bootstrap_intervals(sample, HALF, draws=50)
    for name, patients in {
        "sensitivity": 400 / 150,
        "recall_all": 400 / 150,
        "sensitivity_patients": 3,
        "specificity": 9 / 5,
        "specificity_patients": 2,
        "auroc": 9 / 5,
        "auroc_patients": 2,
    }.items():
        assert intervals[name] == (pytest.approx(0.025 ** (1 / patients)), 1.0), name
    assert intervals["mcc"] == (pytest.approx(-1 + 2 * 0.025 ** (5 / 9)), 1.0)
    wrong = bootstrap_intervals(Sample(1 - sample.scores, labels, subjects), HALF, draws=50)
    assert wrong["specificity"] == (0.0, pytest.approx(1 - 0.025 ** (5 / 9)))
    others = Sample(sample.scores, labels, subjects + 9)
    folds = fold_mean([(sample, HALF), (others, HALF)], draws=50)
    assert folds["sensitivity_patients"] == (1.0, pytest.approx(0.025 ** (1 / 6)), 1.0)


def test_class_with_a_single_patient_has_no_interval() -> None:
    sample = simulate(np.random.default_rng(0), 1, 9, 15, 1.6)
    # Only the leukemic class shows how its patients differ.
    intervals = bootstrap_intervals(sample, HALF, draws=50)
    assert set(intervals) == {"sensitivity", "recall_all", "sensitivity_patients"}
    value, low, high = fold_mean([(sample, HALF)], draws=50)["auroc"]
    assert value == pytest.approx(oracle.roc_auc_score(sample.labels, sample.scores))
    assert (low, high) == (None, None)


def test_few_subjects_are_warned_of() -> None:
    generator = np.random.default_rng(0)
    assert few_subjects(simulate(generator, 6, 6, 2, 1.0)) is None
    assert few_subjects(simulate(generator, 2, 3, 2, 1.0)) == (
        "only 2.0 effective healthy subjects (of 2) and 3.0 effective leukemic subjects (of 3): "
        "intervals are wide, and assume that these patients are typical"
    )
    (uneven,) = unequal(generator, ((789, *[18] * 9), [50] * 9), [1.6])
    assert "only 1.4 effective healthy subjects (of 10): intervals" in str(few_subjects(uneven))
    one = str(few_subjects(simulate(generator, 1, 9, 4, 1.0)))
    assert one.endswith("so metrics of that class have no interval")


def test_mean_over_folds_is_the_mean_of_their_metrics() -> None:
    generator = np.random.default_rng(0)
    samples = [simulate(generator, 4, 10, 15, 1.6, f"{fold}-") for fold in range(3)]
    runs = [(sample, {"default": 0.5, "youden": 0.4 + 0.1 * i}) for i, sample in enumerate(samples)]
    pooled = fold_mean(runs, draws=100)
    each = [
        all_metrics(sample.scores, sample.labels, cuts, patients=sample.subjects)
        for sample, cuts in runs
    ]
    for name, (value, low, high) in pooled.items():
        assert value == pytest.approx(np.mean([figures[name] for figures in each]), abs=1e-6)
        assert low is not None
        assert high is not None
        assert low < value < high
    # Scores of different models are not compared with each other.
    shifted = Sample(samples[0].scores ** 9, samples[0].labels, samples[0].subjects)
    again = fold_mean([(shifted, runs[0][1]), *runs[1:]], draws=100)
    assert again["auroc"] == pytest.approx(pooled["auroc"])
    # Metrics of runs are matched by name.
    turned = [(sample, dict(reversed(cuts.items()))) for sample, cuts in runs]
    assert fold_mean([runs[0], *turned[1:]], draws=100) == pooled
    with pytest.raises(ValueError, match=r"no metric .*@youden"):
        fold_mean([runs[0], (samples[1], HALF)], draws=100)


def test_seeds_share_a_fold_and_widen_the_interval() -> None:
    generator = np.random.default_rng(0)
    widths = []
    for luck in (0.0, 1.0):
        runs, _ = three_folds(generator, (1.6, 1.6), seeds=3, luck=luck)
        value, low, high = fold_mean([(run, HALF) for run in runs], draws=200)["auroc"]
        mean = np.mean([oracle.roc_auc_score(run.labels, run.scores) for run in runs])
        assert value == pytest.approx(mean)
        assert low is not None
        assert high is not None
        widths.append(high - low)
    assert widths[1] > 1.3 * widths[0]


def test_a_subject_is_tested_in_one_fold_only() -> None:
    generator = np.random.default_rng(0)
    runs = [(simulate(generator, 4, 10, images, 1.6), HALF) for images in (5, 6)]
    with pytest.raises(ValueError, match="tested in two folds"):
        fold_mean(runs)
    with pytest.raises(ValueError, match="no sample"):
        fold_mean([])


def test_a_small_calibration_error_has_a_narrow_interval() -> None:
    labels = np.repeat([0, 1], [100, 210])
    subjects = np.concatenate([np.repeat(np.arange(5), [10, 15, 20, 25, 30]), 5 + np.arange(210)])
    sample = Sample(np.full(310, 0.68), labels, subjects)
    low, high = bootstrap_intervals(sample, HALF)["ece"]
    assert low == 0
    assert 0.01 < high < 0.2


@pytest.mark.parametrize("surest", [4.8, 15.0])
def test_nearly_flawless_model_has_intervals(surest: float) -> None:
    """Squared, the variance of its calibrated Brier score is below the smallest positive float."""
    labels = np.repeat([0, 1], 60)
    scores = expit((2 * labels - 1) * (surest + np.linspace(0, 1, 120)))
    calibrated = apply_temperature(scores, fit_temperature(scores, labels))
    sample = Sample(scores, labels, np.arange(120) // 10, calibrated)
    for name, ends in bootstrap_intervals(sample, HALF, draws=50).items():
        assert np.isfinite(ends).all(), name
