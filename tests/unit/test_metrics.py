"""Metrics and their weighted forms, compared with scikit-learn."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle

from leuk.metrics.bootstrap import Sample
from leuk.metrics.classification import METRICS, PATIENTS, all_metrics, thesis_metrics
from leuk.metrics.thresholds import choose_thresholds, sensitivity_threshold, youden_threshold

CUTS = {"default": 0.5, "youden": 0.62}


@pytest.fixture
def tied() -> Sample:
    """Nine patients, one with images of both classes, and few distinct scores."""
    generator = np.random.default_rng(0)
    subjects = generator.integers(0, 9, 400)
    labels = np.where(subjects < 3, 0, 1)
    labels[subjects == 8] = generator.integers(0, 2, int((subjects == 8).sum()))
    scores = (generator.normal(0.4 + 0.2 * labels, 0.2).clip(0, 1) * 12).round() / 12
    return Sample(scores, labels.astype(np.int64), subjects, calibrated=scores**2)


def expected(sample: Sample, cuts: Mapping[str, float], weights: np.ndarray) -> dict[str, float]:
    """Metrics by scikit-learn; it has no expected calibration error."""
    labels, given = sample.labels, {"sample_weight": weights}
    assert sample.calibrated is not None
    found = {
        "auroc": oracle.roc_auc_score(labels, sample.scores, **given),
        "auprc": oracle.average_precision_score(labels, sample.scores, **given),
        "brier": oracle.brier_score_loss(labels, sample.scores, **given),
        "brier_calibrated": oracle.brier_score_loss(labels, sample.calibrated, **given),
    }
    for cut, threshold in cuts.items():
        called, end = sample.scores >= threshold, "" if cut == "default" else f"@{cut}"
        of_decisions = {
            "accuracy": oracle.accuracy_score(labels, called, **given),
            "balanced_accuracy": oracle.balanced_accuracy_score(labels, called, **given),
            "sensitivity": oracle.recall_score(labels, called, pos_label=1, **given),
            "specificity": oracle.recall_score(labels, called, pos_label=0, **given),
            "mcc": oracle.matthews_corrcoef(labels, called, **given),
        }
        for name in ("precision", "recall", "f1"):
            function = getattr(oracle, f"{name}_score")
            hem, leukemic = function(labels, called, average=None, **given)
            of_decisions |= {f"{name}_hem": hem, f"{name}_all": leukemic}
            for average in ("macro", "weighted"):
                value = function(labels, called, average=average, **given)
                of_decisions[f"{name}_{average}"] = value
        found |= {f"{name}{end}": value for name, value in of_decisions.items()}
    return found


def test_every_metric_agrees_with_scikit_learn(tied: Sample) -> None:
    images = tied.reweighted(CUTS)
    weights = np.vstack([np.ones(9), np.random.default_rng(1).uniform(0, 3, (20, 9))])
    together = images.metrics(weights, list(images.named))
    for column, row in zip(together.T, weights, strict=True):
        found = dict(zip(images.named, column, strict=True))
        right = expected(tied, CUTS, row[tied.codes])
        plain = {name for name, one in images.named.items() if not one.patients}
        assert plain == {*right, "ece", "ece_calibrated"}
        assert {name: found[name] for name in right} == pytest.approx(right, abs=1e-9)
    values = all_metrics(tied.scores, tied.labels, CUTS, tied.calibrated)
    assert values == pytest.approx(
        {name: together[row, 0] for row, name in enumerate(images.named) if name in values},
        abs=1e-6,
    )
    assert set(values) == plain


def test_patients_of_a_class_weigh_the_same(tied: Sample) -> None:
    """Every image weighs 1 / (its patient's images of its class), times the patient's weight."""
    images = np.bincount(2 * tied.codes + tied.labels, minlength=18)
    within = 1 / images[2 * tied.codes + tied.labels]
    ours = tied.reweighted(CUTS)
    for row in (np.ones(9), *np.random.default_rng(1).uniform(0, 3, (5, 9))):
        right = expected(tied, CUTS, within * row[tied.codes])
        names = {name for name, one in ours.named.items() if one.patients}
        assert len(names) == 7
        for name in names:
            value = right[name.replace(PATIENTS, "")]
            assert ours.metric(name, row[None])[0] == pytest.approx(value, abs=1e-9), name
    values = all_metrics(tied.scores, tied.labels, CUTS, patients=tied.subjects)
    right = expected(tied, CUTS, within)
    assert values["auroc_patients"] == pytest.approx(right["auroc"])
    assert values["sensitivity_patients@youden"] == pytest.approx(right["sensitivity@youden"])


def test_integer_weights_equal_repeated_images(tied: Sample) -> None:
    weights = np.random.default_rng(2).integers(1, 4, (1, 9))
    again = np.repeat(np.arange(len(tied)), weights[0][tied.codes])
    repeated = all_metrics(tied.scores[again], tied.labels[again], CUTS, tied.scores[again] ** 2)
    images = tied.reweighted(CUTS)
    for name, value in repeated.items():
        found = images.metric(name, weights.astype(np.float64))
        assert found[0] == pytest.approx(value, abs=1e-6), name


def test_an_added_metric_has_values_of_every_kind(
    tied: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = METRICS["mcc"].__class__("J", lambda tp, fp, fn, tn: tp / (tp + fn) - fp / (fp + tn))
    monkeypatch.setitem(METRICS, "informedness", one)
    values = all_metrics(tied.scores, tied.labels, CUTS)
    assert values["informedness@youden"] == pytest.approx(
        values["sensitivity@youden"] + values["specificity@youden"] - 1, abs=1e-6
    )


def test_unknown_metrics_are_refused(tied: Sample) -> None:
    with pytest.raises(ValueError, match="no metric auc; choose from auroc"):
        tied.reweighted(CUTS).metric("auc", np.ones((1, 9)))


def test_metrics_of_known_cases() -> None:
    # Ten images at 0.8, half of them leukemic, and ten at 0.2, of which none is.
    scores = torch.tensor([0.8] * 10 + [0.2] * 10)
    labels = torch.tensor([1, 0] * 5 + [0] * 10)
    assert all_metrics(scores, labels, {})["ece"] == pytest.approx(0.5 * 0.3 + 0.5 * 0.2)
    # AUROC is of scores, not of decisions; a score at the threshold is called leukemic.
    found = all_metrics(torch.tensor([0.9, 0.6, 0.5, 0.1]), torch.tensor([1, 1, 0, 0]), CUTS)
    assert found["auroc"] == 1
    assert (found["sensitivity"], found["specificity"]) == (1, 0.5)
    assert found["balanced_accuracy"] == 0.75


def test_arrays_tensors_and_orders_are_equivalent(tied: Sample) -> None:
    values = all_metrics(tied.scores, tied.labels, CUTS)
    scores, labels = torch.from_numpy(tied.scores), torch.from_numpy(tied.labels)
    assert all_metrics(scores, labels, CUTS) == values
    shuffled = torch.randperm(len(scores))
    assert all_metrics(scores[shuffled], labels[shuffled], CUTS) == pytest.approx(values)


def test_the_thesis_counts_healthy_as_positive(tied: Sample) -> None:
    thesis = thesis_metrics(tied.scores, tied.labels, CUTS["youden"])
    healthy, called = 1 - tied.labels, (tied.scores < CUTS["youden"]).astype(int)
    right = {
        "accuracy": oracle.accuracy_score(healthy, called),
        "sensitivity": oracle.recall_score(healthy, called),
        "specificity": oracle.recall_score(healthy, called, pos_label=0),
        "auc": oracle.roc_auc_score(healthy, called),
    }
    for name in ("precision", "recall", "f1"):
        for average in ("macro", "weighted"):
            value = getattr(oracle, f"{name}_score")(healthy, called, average=average)
            right[f"{name}_{average}"] = value
    assert thesis == pytest.approx(right, abs=1e-6)
    # A score at the threshold is called leukemic here, too.
    assert thesis_metrics(np.array([0.5, 0.2]), np.array([1, 0]), 0.5)["accuracy"] == 1


def test_gain_of_the_thesis_is_a_loss_of_leukemic_images() -> None:
    # Its "+167 % sensitivity": more healthy images called healthy, fewer leukemic images found.
    labels = torch.tensor([0] * 16 + [1] * 30)
    before = thesis_metrics(torch.tensor([0.1] * 3 + [0.9] * 13 + [0.9] * 29 + [0.1]), labels)
    after = thesis_metrics(torch.tensor([0.1] * 8 + [0.9] * 8 + [0.9] * 26 + [0.1] * 4), labels)
    assert (before["sensitivity"], after["sensitivity"]) == pytest.approx((0.1875, 0.5))
    assert after["specificity"] < before["specificity"]


def test_chosen_thresholds_are_the_best(tied: Sample) -> None:
    once = np.ones((1, len(tied)))

    def at(threshold: float) -> dict[str, float]:
        return all_metrics(tied.scores, tied.labels, {"default": threshold})

    (youden,) = youden_threshold(tied.scores, tied.labels, once)
    best = max(at(score)["balanced_accuracy"] for score in set(tied.scores))
    assert at(youden)["balanced_accuracy"] == pytest.approx(best)
    (sensitive,) = sensitivity_threshold(tied.scores, tied.labels, once)
    assert at(sensitive)["sensitivity"] >= 0.95
    assert at(tied.scores[tied.scores > sensitive].min())["sensitivity"] < 0.95
    # 19 of 20 leukemic images are 0.95 of them, despite rounding.
    known = np.append(np.linspace(0.5, 0.69, 20), 0.1), np.repeat([1, 0], [20, 1]), np.ones((1, 21))
    assert sensitivity_threshold(*known) == pytest.approx(0.51)
    assert sensitivity_threshold(*known, wanted=1.0) == pytest.approx(0.5)


def test_default_threshold_is_one_half(tied: Sample) -> None:
    chosen = choose_thresholds(tied.scores, tied.labels, tied.subjects)
    assert list(chosen) == ["default", "youden", "sensitivity95"]
    assert chosen["default"] == 0.5


@pytest.mark.parametrize("scores", [[0.5, 1.2], [0.5, -0.1], [0.5, float("nan")]])
def test_scores_must_be_probabilities(scores: list[float]) -> None:
    with pytest.raises(ValueError, match=r"scores must be in \[0, 1\]"):
        all_metrics(torch.tensor(scores), torch.tensor([0, 1]), CUTS)


def test_both_classes_are_needed() -> None:
    with pytest.raises(ValueError, match=r"both classes are needed, found labels \[1\]"):
        all_metrics(torch.tensor([0.2, 0.4]), torch.tensor([1, 1]), CUTS)
    with pytest.raises(ValueError, match="both classes are needed"):
        choose_thresholds(torch.tensor([0.2, 0.4]), torch.tensor([0, 0]), ["a", "b"])
