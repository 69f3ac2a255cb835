"""Metrics and their weighted forms, compared with scikit-learn."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from simulated import nine_patients
from sklearn import metrics as oracle

from leuk.metrics.classification import (
    PATIENTS,
    Sample,
    all_metrics,
    per_subject,
    thesis_metrics,
)

CUTS = {"default": 0.5, "youden": 0.62}


@pytest.fixture
def tied() -> Sample:
    """Few distinct scores."""
    return nine_patients(steps=12)


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
    """Values, and metrics of weighted patients, by image and by patient: then every image weighs
    1 / (its patient's images of its class), times the patient's weight."""
    images = tied.reweighted(CUTS)
    own = np.bincount(2 * tied.codes + tied.labels, minlength=18)
    within = 1 / own[2 * tied.codes + tied.labels]
    weights = np.vstack([np.ones(9), np.random.default_rng(1).uniform(0, 3, (5, 9))])
    together = images.metrics(weights, list(images.named))
    for column, row in zip(together.T, weights, strict=True):
        found = dict(zip(images.named, column, strict=True))
        right = expected(tied, CUTS, row[tied.codes])
        alike = expected(tied, CUTS, within * row[tied.codes])
        by_patient = {name for name, one in images.named.items() if one.patients}
        assert len(by_patient) == 7
        right |= {name: alike[name.replace(PATIENTS, "")] for name in by_patient}
        assert set(found) == {*right, "ece", "ece_calibrated"}
        assert {name: found[name] for name in right} == pytest.approx(right, abs=1e-9)
    values = all_metrics(tied.scores, tied.labels, CUTS, tied.calibrated, tied.subjects)
    assert values == pytest.approx(dict(zip(images.named, together[:, 0], strict=True)), abs=1e-6)
    plain = all_metrics(tied.scores, tied.labels, CUTS)
    assert set(plain) == {n for n in values if PATIENTS not in n and "_calibrated" not in n}


def test_integer_weights_equal_repeated_images(tied: Sample) -> None:
    weights = np.random.default_rng(2).integers(1, 4, (1, 9))
    again = np.repeat(np.arange(len(tied)), weights[0][tied.codes])
    repeated = all_metrics(tied.scores[again], tied.labels[again], CUTS, tied.scores[again] ** 2)
    found = tied.reweighted(CUTS).metrics(weights.astype(np.float64), list(repeated))[:, 0]
    assert dict(zip(repeated, found, strict=True)) == pytest.approx(repeated, abs=1e-6)


def test_metrics_of_known_cases() -> None:
    # Ten images at 0.8, half of them leukemic, and ten at 0.2, of which none is.
    scores = torch.tensor([0.8] * 10 + [0.2] * 10)
    labels = torch.tensor([1, 0] * 5 + [0] * 10)
    assert all_metrics(scores, labels, {})["ece"] == pytest.approx(0.5 * 0.3 + 0.5 * 0.2)
    # AUROC is of scores, not of decisions; a score at the threshold is called leukemic.
    found = all_metrics(torch.tensor([0.9, 0.6, 0.5, 0.1]), torch.tensor([1, 1, 0, 0]), CUTS)
    assert found["auroc"] == 1
    assert (found["sensitivity"], found["specificity"]) == (1, 0.5)


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


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"labels": np.ones(4, np.int64)}, r"both classes are needed, found labels \[1\]"),
        ({"labels": np.array([0, 1, 2, 0])}, "both classes are needed"),
        ({"scores": np.array([0.1, 0.2, 0.3, np.nan])}, r"scores must be in \[0, 1\]"),
        ({"scores": np.array([0.1, 0.2, 0.3, -0.1])}, r"scores must be in \[0, 1\]"),
        ({"calibrated": np.array([0.1, 0.2, 0.3, 1.5])}, r"scores must be in \[0, 1\]"),
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
