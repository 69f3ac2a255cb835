from collections.abc import Sequence

import numpy as np
import pytest
from scipy.special import expit
from simulated import (
    ALL_IMAGES,
    HEM_IMAGES,
    TEST_FOLDS,
    UNEQUAL_NOISE,
    simulate,
    three_folds,
    true_auroc,
    true_recall,
    unequal,
)
from sklearn import metrics as oracle

from leuk.metrics.bootstrap import (
    Bootstrap,
    Fold,
    Sample,
    bootstrap_intervals,
    few_subjects,
    fold_mean,
    per_subject,
    resamples,
)
from leuk.metrics.calibration import apply_temperature, fit_temperature
from leuk.metrics.classification import all_metrics
from leuk.metrics.thresholds import choose_thresholds

HALF = {"default": 0.5}
CUTS = {"default": 0.5, "youden": 0.62}


@pytest.fixture
def uneven() -> Sample:
    """Nine patients, one with images of both classes, with calibrated scores."""
    generator = np.random.default_rng(0)
    subjects = generator.integers(0, 9, 400)
    labels = np.where(subjects < 3, 0, 1)
    labels[subjects == 8] = generator.integers(0, 2, int((subjects == 8).sum()))
    scores = generator.normal(0.4 + 0.2 * labels, 0.2).clip(0, 1)
    return Sample(scores, labels.astype(np.int64), subjects, calibrated=scores**2)


def test_coverage_with_the_image_counts_of_real_patients() -> None:
    """At least 0.92 of 0.95, for 3 patients with 789, 18 and 18 healthy images, and for 11."""
    generator = np.random.default_rng(0)
    truth = true_auroc(3.0, UNEQUAL_NOISE)
    hits: dict[str, list[bool]] = {"auroc": [], "auroc_patients": []}
    for images in (TEST_FOLDS[0], (HEM_IMAGES, ALL_IMAGES)):
        for _ in range(200):
            (sample,) = unequal(generator, images, [3.0], share=0.1)
            intervals = bootstrap_intervals(sample, HALF, draws=200)
            for name, found in hits.items():
                found.append(intervals[name][0] <= truth <= intervals[name][1])
    shares = {name: np.mean(found) for name, found in hits.items()}
    assert all(0.92 <= share <= 0.985 for share in shares.values()), shares


def test_coverage_with_three_very_unequal_healthy_patients() -> None:
    """Before their freedom followed from the design, too, 0.88 by patient and 0.91 of
    specificity."""
    generator = np.random.default_rng(0)
    gap, hits = 3.0, dict[str, list[bool]]()
    for _ in range(400):
        (sample,) = unequal(generator, TEST_FOLDS[0], [gap], share=0.1)
        for name, (low, high) in bootstrap_intervals(sample, HALF, draws=200).items():
            if name.startswith(("balanced_accuracy", "sensitivity", "specificity")):
                truth = true_recall(gap, UNEQUAL_NOISE)
                hits.setdefault(name, []).append(low <= truth <= high)
    shares = {name: np.mean(found) for name, found in hits.items()}
    assert len(shares) == 6
    assert all(share >= 0.92 for share in shares.values()), shares


def test_freedom_is_by_effective_subjects_unless_they_weigh_the_same() -> None:
    values = np.random.default_rng(0).normal(size=4)
    images = np.array([300, 100, 100, 100])
    bootstrap = Bootstrap([Fold(["run"], [np.arange(4)], 4, images)], 50, 0)
    for equal, freedom in ((False, 600**2 / (300**2 + 3 * 100**2) - 1), (True, 3)):
        found = bootstrap.estimate(lambda _, weights: weights @ values / 4, equal)
        assert found.freedom == pytest.approx(freedom)


def test_freedom_of_two_strata_is_that_of_welch() -> None:
    """Jackknife variances of means are s^2 / n; Welch and Satterthwaite weigh them by n - 1."""
    two, five = np.array([1.0, 10.0]), np.array([0.0, 2.0, 3.0, 7.0, 8.0])
    factors = np.concatenate([two / 2, five / 5])
    bootstrap = Bootstrap([Fold(["run"], [np.arange(2), np.arange(2, 7)], 7)], 50, 0)
    found = bootstrap.estimate(lambda _, weights: weights @ factors)
    a, b = two.var(ddof=1) / 2, five.var(ddof=1) / 5
    assert found.freedom == pytest.approx((a + b) ** 2 / (a**2 / 1 + b**2 / 4))


def test_every_metric_is_inside_its_interval(uneven: Sample) -> None:
    thresholds = choose_thresholds(uneven.scores, uneven.labels, uneven.subjects)
    values = all_metrics(
        uneven.scores, uneven.labels, thresholds, uneven.calibrated, uneven.subjects
    )
    intervals = bootstrap_intervals(uneven, thresholds, draws=200)
    assert set(intervals) == set(values)
    for name, (low, high) in intervals.items():
        assert -1 <= low < values[name] < high <= 1, name
    assert intervals == bootstrap_intervals(uneven, thresholds, draws=200)
    assert intervals != bootstrap_intervals(uneven, thresholds, draws=200, seed=1)


def test_resamples_keep_the_classes_and_the_mean_and_are_not_too_narrow() -> None:
    strata = [np.arange(4), np.arange(4, 5), np.arange(5, 15)]
    weights = resamples(strata, 15, 20_000, np.random.default_rng(0))
    for members in strata:
        np.testing.assert_allclose(weights[:, members].sum(axis=1), len(members))
    assert (weights[:, 4] == 1).all()
    values = np.random.default_rng(1).normal(size=10)
    spread = (weights[:, 5:] @ values / 10).var()
    assert spread == pytest.approx(values.var(ddof=1) / 10, rel=0.05)


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
    generator = np.random.default_rng(0)
    sample = simulate(generator, 1, 9, 15, 1.6)
    intervals = bootstrap_intervals(sample, HALF, draws=50)
    # Only the leukemic class shows how its patients differ.
    assert set(intervals) == {"sensitivity", "recall_all", "sensitivity_patients"}
    value, low, high = fold_mean([(sample, HALF)], draws=50)["auroc"]
    assert value == pytest.approx(oracle.roc_auc_score(sample.labels, sample.scores))
    assert (low, high) == (None, None)


TRUTHS = {
    "auroc": true_auroc(1.6),
    "sensitivity": true_recall(1.6),
    "specificity": true_recall(1.6),
}


def held(samples: Sequence[Sample], draws: int = 300) -> dict[str, float]:
    """Share of intervals that cover the true value."""
    hits = dict.fromkeys(TRUTHS, 0)
    for sample in samples:
        intervals = bootstrap_intervals(sample, HALF, draws)
        for name, truth in TRUTHS.items():
            low, high = intervals[name]
            hits[name] += low <= truth <= high
    return {name: count / len(samples) for name, count in hits.items()}


def test_intervals_have_nominal_coverage() -> None:
    generator = np.random.default_rng(0)
    shares = held([simulate(generator, 12, 30, 15, 1.6) for _ in range(300)])
    # The binomial error of 300 sets is 1.3 points; the rest is due to the small sets.
    assert all(0.91 <= share <= 0.98 for share in shares.values()), shares


def test_intervals_over_images_are_too_narrow() -> None:
    generator = np.random.default_rng(0)
    samples = [simulate(generator, 12, 30, 20, 1.6) for _ in range(12)]
    by_cell = [Sample(s.scores, s.labels, np.arange(len(s))) for s in samples]
    shares = held(by_cell, draws=100)
    assert all(share < 0.8 for share in shares.values()), shares


def test_three_healthy_subjects_have_coverage_and_a_warning() -> None:
    generator = np.random.default_rng(0)
    samples = [simulate(generator, 3, 20, 15, 1.6) for _ in range(200)]
    shares = held(samples)
    assert all(0.92 <= share <= 0.99 for share in shares.values()), shares
    assert few_subjects(samples[0]) == (
        "only 3.0 effective healthy subjects (of 3): intervals are wide, and assume that these "
        "patients are typical"
    )


def test_few_subjects_of_either_class_are_warned_of() -> None:
    generator = np.random.default_rng(0)
    assert few_subjects(simulate(generator, 6, 6, 2, 1.0)) is None
    both = few_subjects(simulate(generator, 2, 3, 2, 1.0))
    assert both is not None
    assert both.startswith(
        "only 2.0 effective healthy subjects (of 2) and 3.0 effective leukemic subjects (of 3)"
    )
    (uneven,) = unequal(generator, ((789, *[18] * 9), [50] * 9), [1.6])
    assert "only 1.4 effective healthy subjects (of 10): intervals" in str(few_subjects(uneven))
    one = few_subjects(simulate(generator, 1, 9, 4, 1.0))
    assert one is not None
    assert one.endswith("so metrics of that class have no interval")


def test_mean_over_folds_is_the_mean_of_their_metrics() -> None:
    generator = np.random.default_rng(0)
    samples = [simulate(generator, 4, 10, 15, 1.6, f"{fold}-") for fold in range(3)]
    runs = [(sample, {"default": 0.5, "youden": 0.4 + 0.1 * i}) for i, sample in enumerate(samples)]
    pooled = fold_mean(runs, draws=200)
    each = [
        all_metrics(sample.scores, sample.labels, cuts, patients=sample.subjects)
        for sample, cuts in runs
    ]
    for name, (value, low, high) in pooled.items():
        assert value == pytest.approx(np.mean([figures[name] for figures in each]), abs=1e-6)
        assert low < value < high
    # Scores of different models are not compared with each other.
    shifted = Sample(samples[0].scores ** 9, samples[0].labels, samples[0].subjects)
    again = fold_mean([(shifted, runs[0][1]), *runs[1:]], draws=200)
    assert again["auroc"] == pytest.approx(pooled["auroc"])


def test_metrics_of_runs_are_matched_by_name() -> None:
    generator = np.random.default_rng(0)
    samples = [simulate(generator, 4, 10, 15, 1.6, f"{fold}-") for fold in range(3)]
    plain = fold_mean([(sample, CUTS) for sample in samples], draws=100)
    turned = dict(reversed(CUTS.items()))
    mixed = [CUTS, *[turned] * (len(samples) - 1)]
    assert fold_mean(list(zip(samples, mixed, strict=True)), draws=100) == plain
    lacking = [CUTS, *[HALF] * (len(samples) - 1)]
    with pytest.raises(ValueError, match=r"no metric .*@youden"):
        fold_mean(list(zip(samples, lacking, strict=True)), draws=100)


def test_means_over_folds_have_nominal_coverage() -> None:
    generator = np.random.default_rng(0)
    hits = dict.fromkeys(TRUTHS, 0)
    for _ in range(150):
        folds = [simulate(generator, 4, 10, 15, 1.6, f"{fold}-") for fold in range(3)]
        pooled = fold_mean([(fold, HALF) for fold in folds], draws=200)
        for name, truth in TRUTHS.items():
            hits[name] += pooled[name][1] <= truth <= pooled[name][2]
    assert all(0.9 <= count / 150 <= 0.99 for count in hits.values()), hits


def test_seeds_share_a_fold_and_widen_the_interval() -> None:
    generator = np.random.default_rng(0)
    steady, _ = three_folds(generator, (1.6, 1.6), seeds=3)
    lucky, _ = three_folds(generator, (1.6, 1.6), seeds=3, luck=1.0)
    widths = []
    for runs in (steady, lucky):
        pooled = fold_mean([(run, HALF) for run in runs], draws=200)
        mean = np.mean([all_metrics(run.scores, run.labels, HALF)["auroc"] for run in runs])
        assert pooled["auroc"][0] == pytest.approx(mean, abs=1e-6)
        widths.append(pooled["auroc"][2] - pooled["auroc"][1])
    assert widths[1] > 1.3 * widths[0]


def test_a_subject_is_tested_in_one_fold_only() -> None:
    generator = np.random.default_rng(0)
    runs = [(simulate(generator, 4, 10, images, 1.6), HALF) for images in (5, 6)]
    with pytest.raises(ValueError, match="tested in two folds"):
        fold_mean(runs)
    with pytest.raises(ValueError, match="no sample"):
        fold_mean([])


def test_freedom_is_at_most_that_of_patients_who_vary_alike() -> None:
    """Of 3 patients who happen to be alike and 9 who differ: shares of 3/4 and 1/4 of the variance,
    so that 1 / (0.75**2 / 2 + 0.25**2 / 8); 8 from the observed variances."""
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(0, 1e-4, 3) / 3, generator.normal(0, 1, 9) / 9])
    fold = Fold(["run"], [np.arange(3), np.arange(3, 12)], 12)
    bootstrap = Bootstrap([fold], 50, 0)
    found = bootstrap.estimate(lambda _, weights: weights @ values)
    assert found.freedom == pytest.approx(1 / (0.75**2 / 2 + 0.25**2 / 8), rel=1e-3)
    # A stratum without variance gets no share.
    alone = bootstrap.estimate(lambda _, weights: weights[:, 3:] @ values[3:])
    assert alone.freedom == pytest.approx(8)


def test_error_is_the_larger_of_bootstrap_and_jackknife() -> None:
    values, strata = np.array([0.0, 1.0, 3.0, 7.0]), [np.arange(4)]
    larger = set()
    for seed in range(20):
        drawn = resamples(strata, 4, 5, np.random.default_rng(seed)) @ values / 4
        found = Bootstrap([Fold(["run"], strata, 4)], 5, seed).estimate(
            lambda _, weights: weights @ values / 4
        )
        # The jackknife of a mean is exact.
        spread, exact = drawn.std(ddof=1), values.std(ddof=1) / 2
        assert found.error == pytest.approx(max(spread, exact))
        larger.add(spread > exact)
    assert larger == {False, True}


def test_error_reflects_a_patient_with_most_of_the_images() -> None:
    """Means without each of patients with 8, 1 and 1 images of 1, 0 and 0: 0, 8/9 and 8/9."""
    images, right = np.array([8, 1, 1]), np.array([8, 0, 0])
    found = Bootstrap([Fold(["run"], [np.arange(3)], 3, images)], 200, 0).estimate(
        lambda _, weights: (weights @ right) / (weights @ images)
    )
    left_out = np.array([0, 8 / 9, 8 / 9])
    assert found.error >= np.sqrt(2 / 3 * ((left_out - left_out.mean()) ** 2).sum()) - 1e-12


def test_a_small_calibration_error_has_a_narrow_interval() -> None:
    labels = np.repeat([0, 1], [100, 210])
    subjects = np.concatenate([np.repeat(np.arange(5), [10, 15, 20, 25, 30]), 5 + np.arange(210)])
    sample = Sample(np.full(310, 0.68), labels, subjects)
    low, high = bootstrap_intervals(sample, HALF)["ece"]
    assert low == 0
    assert 0.01 < high < 0.2


@pytest.mark.parametrize("surest", [4.8, 9.0, 15.0])
def test_nearly_flawless_model_has_intervals(surest: float) -> None:
    """Squared, the variance of its calibrated Brier score is below the smallest positive float."""
    labels = np.repeat([0, 1], 60)
    scores = expit((2 * labels - 1) * (surest + np.linspace(0, 1, 120)))
    calibrated = apply_temperature(scores, fit_temperature(scores, labels))
    sample = Sample(scores, labels, np.arange(120) // 10, calibrated)
    for name, ends in bootstrap_intervals(sample, HALF, draws=50).items():
        assert np.isfinite(ends).all(), name


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"labels": np.ones(4, np.int64)}, "both classes are needed"),
        ({"scores": np.array([0.1, 0.2, 0.3, np.nan])}, r"must be in \[0, 1\]"),
        ({"calibrated": np.array([0.1, 0.2, 0.3, 1.5])}, r"must be in \[0, 1\]"),
        ({"labels": np.array([0, 1])}, "must be 1-D, of equal length"),
        ({"subjects": np.array(["a"])}, "4 images but 1 subjects"),
    ],
)
def test_samples_are_checked(change: dict[str, np.ndarray], complaint: str) -> None:
    columns = {
        "scores": np.linspace(0, 1, 4),
        "labels": np.array([0, 1, 0, 1]),
        "subjects": np.array(["a", "b", "a", "b"]),
    }
    with pytest.raises(ValueError, match=complaint):
        Sample(**{**columns, **change})


def test_per_subject_accuracy() -> None:
    sample = Sample(
        np.array([0.9, 0.2, 0.1, 0.5, 0.8]),
        np.array([1, 1, 0, 0, 0]),
        np.array(["a", "a", "b", "b", "a"]),
    )
    table = per_subject(sample, 0.5)
    assert table.to_dict("records") == [
        {"subject": "a", "label": 0, "images": 1, "correct": 0.0, "score": 0.8},
        {"subject": "b", "label": 0, "images": 2, "correct": 0.5, "score": pytest.approx(0.3)},
        {"subject": "a", "label": 1, "images": 2, "correct": 0.5, "score": pytest.approx(0.55)},
    ]
