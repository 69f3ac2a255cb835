import numpy as np
import pytest
import torch
from sklearn import metrics as oracle
from torch import Tensor

from leuk.evaluate.baselines import AreaOnly, Majority
from leuk.evaluate.metrics import (
    all_metrics,
    decision_metrics,
    ranking_metrics,
    youden_threshold,
)


@pytest.fixture
def judged() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(400, generator=generator) < 0.66).long()
    scores = torch.sigmoid(torch.randn(400, generator=generator) + 1.5 * (labels - 0.5)).double()
    return scores, labels


def test_figures_agree_with_scikit_learn(judged: tuple[Tensor, Tensor]) -> None:
    scores, labels = judged
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
    # Ten cells at 0.8, half of them leukemic: confidence is off by 0.3; both bins weigh the same
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


def test_youden_threshold_is_the_best_cut(judged: tuple[Tensor, Tensor]) -> None:
    scores, labels = judged
    chosen = youden_threshold(scores, labels)
    best = max(decision_metrics(scores, labels, float(s))["balanced_accuracy"] for s in scores)
    assert decision_metrics(scores, labels, chosen)["balanced_accuracy"] == pytest.approx(best)


def test_chosen_threshold_is_used_as_given(judged: tuple[Tensor, Tensor]) -> None:
    scores, labels = judged
    figures = all_metrics(scores, labels, 0.7)
    for name, value in decision_metrics(scores, labels, 0.7).items():
        assert figures[f"{name}@youden"] == value


def test_order_does_not_matter(judged: tuple[Tensor, Tensor]) -> None:
    scores, labels = judged
    shuffled = torch.randperm(len(scores))
    again = all_metrics(scores[shuffled], labels[shuffled], 0.3)
    assert again == pytest.approx(all_metrics(scores, labels, 0.3))


@pytest.mark.parametrize("scores", [[0.5, 1.2], [0.5, -0.1], [0.5, float("nan")]])
def test_scores_must_be_probabilities(scores: list[float]) -> None:
    with pytest.raises(ValueError, match=r"scores must lie in \[0, 1\]"):
        ranking_metrics(torch.tensor(scores), torch.tensor([0, 1]))


def test_both_classes_are_needed() -> None:
    with pytest.raises(ValueError, match="both classes are needed"):
        decision_metrics(torch.tensor([0.2, 0.4]), torch.tensor([1, 1]), 0.5)


def test_majority_says_the_same_of_every_cell() -> None:
    labels = np.array([1, 1, 0])
    scores = Majority(np.zeros(3), labels).scores(np.zeros(5))
    torch.testing.assert_close(scores, torch.full((5,), 2 / 3, dtype=torch.float64))


@pytest.mark.parametrize("sign", [1, -1])
def test_area_baseline_learns_its_direction(sign: int) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 2
    areas = 0.2 + sign * 0.05 * labels + generator.normal(0, 0.03, 200)
    scores = AreaOnly(areas, labels).scores(areas)
    assert ranking_metrics(scores, torch.from_numpy(labels))["auroc"] > 0.8


def test_area_alone_on_real_cells(cnmc: object, artefacts: object) -> None:
    from leuk.data.cnmc import CNMC

    data = CNMC(f"{cnmc}/224", resolution=64, cache=str(artefacts))
    areas, labels = data.store.areas, np.array(data.targets)
    for part, published in (("fold_0", 0.84), ("fold_1", 0.87)):
        chosen = (data.cells["part"] == part).to_numpy()
        assert oracle.roc_auc_score(labels[chosen], areas[chosen]) == pytest.approx(
            published, abs=0.01
        )
