import numpy as np
import pytest
import torch
from sklearn import metrics as oracle
from torch import Tensor

from leuk.metrics.bootstrap import thesis_metrics
from leuk.metrics.classification import all_metrics, decision_metrics, ranking_metrics
from leuk.metrics.thresholds import choose_thresholds, sensitivity_threshold, youden_threshold


@pytest.fixture
def predictions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(400, generator=generator) < 0.66).long()
    scores = torch.sigmoid(torch.randn(400, generator=generator) + 1.5 * (labels - 0.5)).double()
    return scores, labels


def test_metrics_agree_with_scikit_learn(predictions: tuple[Tensor, Tensor]) -> None:
    scores, labels = predictions
    ranking = ranking_metrics(scores, labels)
    assert ranking["auroc"] == pytest.approx(oracle.roc_auc_score(labels, scores), abs=1e-6)
    assert ranking["auprc"] == pytest.approx(
        oracle.average_precision_score(labels, scores), abs=1e-6
    )
    assert ranking["brier"] == pytest.approx(oracle.brier_score_loss(labels, scores), abs=1e-6)
    decided = (scores >= 0.4).long()
    figures = decision_metrics(scores, labels, 0.4)
    expected = {
        "accuracy": oracle.accuracy_score(labels, decided),
        "balanced_accuracy": oracle.balanced_accuracy_score(labels, decided),
        "sensitivity": oracle.recall_score(labels, decided, pos_label=1),
        "specificity": oracle.recall_score(labels, decided, pos_label=0),
        "precision_all": oracle.precision_score(labels, decided, pos_label=1),
        "precision_hem": oracle.precision_score(labels, decided, pos_label=0),
        "f1_macro": oracle.f1_score(labels, decided, average="macro"),
        "f1_weighted": oracle.f1_score(labels, decided, average="weighted"),
        "precision_weighted": oracle.precision_score(labels, decided, average="weighted"),
        "recall_weighted": oracle.recall_score(labels, decided, average="weighted"),
        "mcc": oracle.matthews_corrcoef(labels, decided),
    }
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=1e-6), name


def test_ece_of_a_known_case() -> None:
    # Ten images at 0.8, half of them leukemic: confidence is off by 0.3; both bins weigh the same
    # as in the other half, ten at 0.2 of which none is.
    scores = torch.tensor([0.8] * 10 + [0.2] * 10)
    labels = torch.tensor([1, 0] * 5 + [0] * 10)
    assert ranking_metrics(scores, labels)["ece"] == pytest.approx(0.5 * 0.3 + 0.5 * 0.2)


def test_leukemia_is_positive() -> None:
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([1, 1, 0, 0])
    figures = decision_metrics(scores, labels, 0.5)
    assert (figures["sensitivity"], figures["specificity"]) == (1.0, 0.0)
    assert ranking_metrics(scores, labels)["auroc"] == 1.0


def test_auroc_is_of_scores_not_of_decisions() -> None:
    scores, labels = torch.tensor([0.9, 0.6, 0.55, 0.1]), torch.tensor([1, 1, 0, 0])
    assert ranking_metrics(scores, labels)["auroc"] == 1.0
    assert decision_metrics(scores, labels, 0.5)["balanced_accuracy"] == 0.75


def test_youden_threshold_is_the_best_cut(predictions: tuple[Tensor, Tensor]) -> None:
    scores, labels = predictions
    chosen = float(youden_threshold(scores.numpy(), labels.numpy(), np.ones((1, len(labels))))[0])
    best = max(decision_metrics(scores, labels, float(s))["balanced_accuracy"] for s in scores)
    assert decision_metrics(scores, labels, chosen)["balanced_accuracy"] == pytest.approx(best)


def test_sensitivity_threshold_is_the_largest_that_finds_enough(
    predictions: tuple[Tensor, Tensor],
) -> None:
    scores, labels = predictions
    one = np.ones((1, len(labels)))
    chosen = float(sensitivity_threshold(scores.numpy(), labels.numpy(), one)[0])
    assert decision_metrics(scores, labels, chosen)["sensitivity"] >= 0.95
    above = float(scores[scores > chosen].min())
    assert decision_metrics(scores, labels, above)["sensitivity"] < 0.95


def test_sensitivity_threshold_of_a_known_case() -> None:
    # 19 of 20 leukemic images are 0.95 of them, despite rounding.
    scores = torch.cat([torch.linspace(0.5, 0.69, 20, dtype=torch.float64), torch.tensor([0.1])])
    labels = torch.tensor([1] * 20 + [0])
    known = scores.numpy(), labels.numpy(), np.ones((1, 21))
    assert sensitivity_threshold(*known) == pytest.approx(0.51)
    assert sensitivity_threshold(*known, wanted=1.0) == pytest.approx(0.5)


def test_thresholds_are_named_and_used_as_given(predictions: tuple[Tensor, Tensor]) -> None:
    scores, labels = predictions
    chosen = choose_thresholds(scores, labels, np.arange(len(labels)))
    assert list(chosen) == ["default", "youden", "sensitivity95"]
    figures = all_metrics(scores, labels, chosen)
    for cut, threshold in chosen.items():
        end = "" if cut == "default" else f"@{cut}"
        for name, value in decision_metrics(scores, labels, threshold).items():
            assert figures[name + end] == value
    assert "brier_calibrated" not in figures


def test_calibrated_scores_have_their_own_metrics(predictions: tuple[Tensor, Tensor]) -> None:
    scores, labels = predictions
    figures = all_metrics(scores, labels, {}, scores**2)
    assert figures["brier_calibrated"] == ranking_metrics(scores**2, labels)["brier"]
    assert figures["ece_calibrated"] == ranking_metrics(scores**2, labels)["ece"]
    assert figures["brier"] == ranking_metrics(scores, labels)["brier"]


def test_arrays_and_tensors_are_equivalent(predictions: tuple[Tensor, Tensor]) -> None:
    scores, labels = predictions
    patients = np.arange(len(labels)) // 4
    cuts = choose_thresholds(scores.numpy(), labels.numpy(), patients)
    assert cuts == choose_thresholds(scores, labels, patients)
    assert all_metrics(scores.numpy(), labels.numpy(), cuts) == all_metrics(scores, labels, cuts)


def test_order_does_not_matter(predictions: tuple[Tensor, Tensor]) -> None:
    scores, labels = predictions
    shuffled = torch.randperm(len(scores))
    again = all_metrics(scores[shuffled], labels[shuffled], {"default": 0.3})
    assert again == pytest.approx(all_metrics(scores, labels, {"default": 0.3}))


def test_the_thesis_counts_healthy_as_positive(predictions: tuple[Tensor, Tensor]) -> None:
    scores, labels = predictions
    thesis = thesis_metrics(scores, labels, 0.4)
    healthy, called = (1 - labels).numpy(), (scores < 0.4).long().numpy()
    expected = {
        "accuracy": oracle.accuracy_score(healthy, called),
        "sensitivity": oracle.recall_score(healthy, called),
        "specificity": oracle.recall_score(healthy, called, pos_label=0),
        "auc": oracle.roc_auc_score(healthy, called),
        **{
            f"{name}_{average}": function(healthy, called, average=average)
            for name, function in (
                ("precision", oracle.precision_score),
                ("recall", oracle.recall_score),
                ("f1", oracle.f1_score),
            )
            for average in ("macro", "weighted")
        },
    }
    assert thesis == pytest.approx(expected, abs=1e-6)


def test_gain_of_the_thesis_is_a_loss_of_leukemic_images() -> None:
    # Its "+167 % sensitivity": more healthy images called healthy, fewer leukemic images found.
    labels = torch.tensor([0] * 16 + [1] * 30)
    before = thesis_metrics(torch.tensor([0.1] * 3 + [0.9] * 13 + [0.9] * 29 + [0.1]), labels)
    after = thesis_metrics(torch.tensor([0.1] * 8 + [0.9] * 8 + [0.9] * 26 + [0.1] * 4), labels)
    assert (before["sensitivity"], after["sensitivity"]) == pytest.approx((0.1875, 0.5))
    assert after["specificity"] < before["specificity"]


@pytest.mark.parametrize("scores", [[0.5, 1.2], [0.5, -0.1], [0.5, float("nan")]])
def test_scores_must_be_probabilities(scores: list[float]) -> None:
    with pytest.raises(ValueError, match=r"scores must be in \[0, 1\]"):
        ranking_metrics(torch.tensor(scores), torch.tensor([0, 1]))


def test_both_classes_are_needed() -> None:
    with pytest.raises(ValueError, match=r"both classes are needed, found labels \[1\]"):
        decision_metrics(torch.tensor([0.2, 0.4]), torch.tensor([1, 1]), 0.5)
    with pytest.raises(ValueError, match="both classes are needed"):
        choose_thresholds(torch.tensor([0.2, 0.4]), torch.tensor([0, 0]), ["a", "b"])


def test_a_score_at_the_threshold_is_leukemic_in_the_thesis_s_convention_too() -> None:
    """Scores 0.5 and 0.2 of a leukemic and a healthy image, threshold 0.5: both are correct."""
    assert thesis_metrics(np.array([0.5, 0.2]), np.array([1, 0]), 0.5)["accuracy"] == 1


def test_default_threshold_is_one_half() -> None:
    scores, labels = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])
    assert choose_thresholds(scores, labels, list("abcd"))["default"] == 0.5
