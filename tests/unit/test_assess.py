"""Evaluation: scores, metrics of runs and baselines from predictions, tables, equal area."""

import json
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from explained import Linear
from omegaconf import OmegaConf
from sklearn.metrics import roc_auc_score

from leuk.classifiers.base import Predictions
from leuk.classifiers.optim import Optim
from leuk.data.datamodule import CNMCDataModule
from leuk.data.rules import Folds, Thesis
from leuk.errors import TrainingError
from leuk.metrics.area import cell_areas
from leuk.metrics.calibration import apply_temperature, fit_temperature
from leuk.metrics.classification import Sample, all_metrics
from leuk.metrics.referral import achieved, choose_band
from leuk.metrics.thresholds import choose_thresholds
from leuk.runs.evaluate import (
    Evaluation,
    Scorer,
    assess_area,
    assess_baselines,
    baseline_scores,
    evaluate,
    measure_images,
)
from leuk.runs.record import RunId

RUN = RunId("cnn", "none", "none", "folds", seed=3)
CPU = torch.device("cpu")


def opened(phantom: Path, artifacts: Path, rule: Any = None) -> CNMCDataModule:
    rule = rule or Folds(train=["fold_0"], val=0.3, test=["fold_1"])
    data = CNMCDataModule(str(phantom), rule, resolution=32, cache=str(artifacts))
    data.setup()
    # Two subjects of a class are one patient.
    index = data.dataset.index
    subjects = index.groupby("label")["subject"].transform(lambda column: column.factorize()[0])
    linked = index["label"].astype(str) + "-" + (subjects // 2).astype(str)
    data._dataset = replace(data.dataset, index=index.assign(patient=linked))
    return data


@pytest.fixture(scope="module")
def data(phantom: Path, artifacts: Path) -> CNMCDataModule:
    return opened(phantom, artifacts)


@pytest.fixture(scope="module")
def predictions(data: CNMCDataModule) -> dict[str, Predictions]:
    """Scores that are overconfident by a factor of two, and biased towards leukemia."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for stage in ("val", "test"):
        images = data.stage(stage)
        labels = torch.tensor(images["label"].to_numpy(np.int64))
        noise = torch.randn(len(labels), generator=generator, dtype=torch.float64)
        scores = torch.sigmoid(2 * (2 * (labels - 0.5) + noise + 1))
        found[stage] = Predictions(torch.tensor(images.index.to_numpy()), scores, labels)
    return found


def evaluation(data: CNMCDataModule, predicted: dict[str, Predictions], folder: Path) -> Evaluation:
    scorer: Any = SimpleNamespace(
        classifier=SimpleNamespace(predict_logits=None),
        device=CPU,
        scores=cell_areas,
        stage=lambda data, stage: predicted[stage],
    )
    cfg = OmegaConf.create({"data": {"batch_size": 4, "resolution": 32}})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("leuk.runs.evaluate.measure_cost", lambda *_, **__: {})
        return evaluate(cfg, folder, data, scorer, RUN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def found(data: CNMCDataModule, predictions: dict[str, Predictions], folder: Path) -> Evaluation:
    return evaluation(data, predictions, folder)


def patients(data: CNMCDataModule, stage: str) -> np.ndarray:
    return data.stage(stage)["patient"].to_numpy().astype(str)


def values(metrics: dict[str, dict[str, float | None]]) -> dict[str, float | None]:
    return {name: metric["value"] for name, metric in metrics.items()}


# Scores


TRAINER: Any = SimpleNamespace(
    precision_plugin=SimpleNamespace(forward_context=nullcontext),
    strategy=SimpleNamespace(root_device=CPU),
)


class Corner(Linear):
    """Twice the log-odds of leukemia are the red value of the first pixel: views differ."""

    def __init__(self, views: Literal[1, 8]) -> None:
        weight = torch.zeros(3, 4, 4)
        weight[0, 0, 0] = 2.0
        super().__init__(weight)
        self.optim = Optim(test_views=views)


@pytest.mark.parametrize("views", [1, 8])
def test_pixels_and_images_have_the_scores_of_the_loaders(views: Literal[1, 8]) -> None:
    """Each of the eight views has one corner as its first pixel, and each corner is in two."""
    pixels = np.zeros((3, 4, 4, 3), np.uint8)
    pixels[:, 0, 0, 0] = (0, 51, 255)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    scorer = Scorer(Corner(views).eval(), TRAINER, batch_size=2)
    scores = scorer.scores(pixels)
    logits = 2 * np.array([0.0, 0.2, 1.0]) * (1 if views == 1 else 0.25)
    assert scores == pytest.approx(1 / (1 + np.exp(-logits)))
    assert scorer.scores(images).tolist() == scores.tolist()
    assert scorer.features(pixels)[:, 0] == pytest.approx([0.0, 0.4, 2.0])


def test_scores_that_are_not_finite_are_refused() -> None:
    classifier = Corner(1).eval()
    classifier.weight.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="no finite scores"):
        Scorer(classifier, TRAINER).scores(np.zeros((1, 4, 4, 3), np.uint8))


# Metrics


def test_thresholds_temperature_and_band_come_from_validation(
    data: CNMCDataModule,
    predictions: dict[str, Predictions],
    found: Evaluation,
    tmp_path: Path,
) -> None:
    val, test = predictions["val"], predictions["test"]
    chosen = choose_thresholds(val.scores, val.labels, patients(data, "val"))
    assert values(found.metrics["thresholds"]) == chosen
    temperature = found.calibration["temperature"]
    assert temperature == fit_temperature(val.scores.numpy(), val.labels.numpy())
    samples = {}
    for stage, one in predictions.items():
        calibrated = apply_temperature(one.scores.numpy(), temperature)
        columns = one.scores.numpy(), one.labels.numpy()
        samples[stage] = Sample(*columns, patients(data, stage), calibrated)
        expected = all_metrics(*columns, chosen, calibrated, patients(data, stage))
        assert values(found.metrics[stage]) == expected
    band = choose_band(samples["val"], chosen["youden"])
    assert found.referral["band"] == asdict(band) | {"reason": band.reason}
    assert found.referral["test"] == asdict(achieved(samples["test"], chosen["youden"], band))
    swapped = Predictions(test.rows, test.scores, 1 - test.labels)
    again = evaluation(data, {"val": val, "test": swapped}, tmp_path)
    assert again.metrics["thresholds"] == found.metrics["thresholds"]
    assert again.metrics["val"] == found.metrics["val"]
    assert again.metrics["test"] != found.metrics["test"]
    assert again.calibration == found.calibration
    assert again.referral["band"] == found.referral["band"]


def test_metrics_have_intervals_over_patients(found: Evaluation) -> None:
    for stage in ("val", "test"):
        for name, metric in found.metrics[stage].items():
            assert metric["low"] is not None, name
            assert metric["low"] <= metric["value"] + 1e-6
            assert metric["value"] <= metric["high"] + 1e-6
    assert {warning.kind for warning in found.warnings} == {"few"}
    assert "val" in [warning.text.partition(":")[0] for warning in found.warnings]


@pytest.mark.parametrize(("stage", "matters"), [("train", True), ("val", False), ("test", False)])
def test_baselines_are_fitted_on_training_images_only(
    stage: str, matters: bool, phantom: Path, artifacts: Path
) -> None:
    data = opened(phantom, artifacts)
    measures = measure_images(data)
    before = baseline_scores(data, measures)
    labels = data.dataset.index["label"].to_numpy().copy()
    rows = getattr(data.split, stage)
    labels[rows] = 1 - labels[rows]
    data._dataset = replace(data.dataset, index=data.dataset.index.assign(label=labels))
    after = baseline_scores(data, measures)
    for name in ("area", "morphology"):
        assert np.allclose(before[name], after[name]) is not matters, name


def test_baselines_have_thresholds_and_a_temperature_from_validation(
    data: CNMCDataModule, found: Evaluation
) -> None:
    measures = measure_images(data)
    np.testing.assert_allclose(measures["area"], data.dataset.store.areas)
    scores = baseline_scores(data, measures)
    val, test = data.stage("val"), data.stage("test")
    assert scores.index.tolist() == [*val.index, *test.index]
    assert list(found.baselines) == ["majority", "area", "morphology"]
    assert found.baselines["majority"]["auroc"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    for name in found.baselines:
        given = scores[name][val.index].to_numpy(), val["label"].to_numpy()
        chosen = choose_thresholds(*given, patients(data, "val"))
        tested, labels = scores[name][test.index].to_numpy(), test["label"].to_numpy()
        calibrated = apply_temperature(tested, fit_temperature(*given))
        expected = all_metrics(tested, labels, chosen, calibrated, patients(data, "test"))
        assert values(found.baselines[name]) == expected, name
        assert {"sensitivity@sensitivity95", "brier_calibrated"} <= set(expected)


def test_predictions_and_patients_are_saved(
    data: CNMCDataModule, predictions: dict[str, Predictions], found: Evaluation, folder: Path
) -> None:
    table = pd.read_csv(folder / found.predictions)
    assert list(table.columns) == [
        *("stage", "path", "subject", "patient", "label", "score", "calibrated", "split", "seed"),
        *("baseline_majority", "baseline_area", "baseline_morphology"),
    ]
    test, one = table[table["stage"] == "test"], predictions["test"]
    assert len(table) == len(test) + len(predictions["val"].rows)
    np.testing.assert_array_equal(test["score"], one.scores)
    calibrated = apply_temperature(one.scores.numpy(), found.calibration["temperature"])
    np.testing.assert_array_equal(test["calibrated"], calibrated)
    scores = baseline_scores(data, measure_images(data))
    np.testing.assert_array_equal(test["baseline_area"], scores["area"][one.rows.numpy()])
    assert set(table["seed"]) == {3}
    subjects = pd.read_csv(folder / "subjects.csv")
    assert list(subjects.columns) == ["stage", "subject", "label", "images", "correct", "score"]
    for stage, rows in subjects.groupby("stage"):
        assert set(rows["subject"]) == set(patients(data, str(stage)))
        assert rows["images"].sum() == len(predictions[str(stage)].rows)
        share = (rows["images"] * rows["correct"]).sum() / rows["images"].sum()
        assert share == pytest.approx(found.metrics[str(stage)]["accuracy"]["value"])


def test_images_that_validate_and_test_are_predicted_once_per_stage(
    phantom: Path, artifacts: Path, tmp_path: Path
) -> None:
    data = opened(phantom, artifacts, Thesis(train=["fold_0"], test=["fold_1"]))
    images = data.stage("test")
    labels = torch.tensor(images["label"].to_numpy(np.int64))
    one = Predictions(torch.tensor(images.index.to_numpy()), labels * 0.6 + 0.2, labels)
    scores = baseline_scores(data, measure_images(data))
    assert scores.index.tolist() == images.index.tolist()
    assert assess_baselines(data, scores)["area"]["auroc"]["value"] > 0.5
    found = evaluation(data, {"val": one, "test": one}, tmp_path)
    saved = pd.read_csv(tmp_path / found.predictions)
    assert saved.groupby("stage").size().to_dict() == {"val": len(images), "test": len(images)}


# Equal area


def test_a_model_that_only_measures_the_area_is_detected(
    data: CNMCDataModule, predictions: dict[str, Predictions], found: Evaluation
) -> None:
    assert found.area == assess_area(data, predictions["test"], cell_areas, CPU)
    rows = torch.tensor(data.stage("test").index.to_numpy())
    batch = data.bank.gather(rows, CPU)
    areas = cell_areas(batch["images"]).double()
    area = assess_area(data, Predictions(rows, areas, batch["labels"]), cell_areas, CPU)
    whole = roc_auc_score(batch["labels"], areas)
    one_size, within = area["one_size"], area["within_bins"]
    assert abs(one_size["metrics"]["auroc"]["value"] - 0.5) < abs(whole - 0.5)
    assert one_size["metrics"]["auroc"]["value"] == pytest.approx(one_size["area_auroc"])
    assert abs(within["value"] - 0.5) < abs(whole - 0.5)
    assert len(within["bins"]) == 5
    assert area["area_within_bins"] == pytest.approx(within["value"], abs=0.1)
    json.dumps(area, allow_nan=False)


def test_cells_are_scaled_to_the_mean_area_of_training_cells(data: CNMCDataModule) -> None:
    train, test = (torch.tensor(data.stage(stage).index.to_numpy()) for stage in ("train", "test"))
    labels = data.bank.labels[test]
    # Score by the red channel, so that the scores at one size differ from the predictions.
    found = assess_area(
        data,
        Predictions(test, labels.double() * 0.2 + 0.4, labels),
        lambda images: images[:, 0].mean(dim=(1, 2)).double().numpy(),
        CPU,
    )
    mean = cell_areas(data.bank.gather(train, CPU)["images"]).mean()
    assert found["one_size"]["target_area"] == pytest.approx(float(mean), rel=1e-6)
    assert found["one_size"]["metrics"]["auroc"]["value"] < 1
    areas = data.dataset.store.areas[test.numpy()]
    assert found["one_size"]["area_auroc_before"] == pytest.approx(roc_auc_score(labels, areas))
    assert found["within_bins"]["value"] == 1
    assert found["area_within_bins"] < 1
