"""Metrics of runs and baselines from predictions."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from sweeps import COST

from leuk.classifiers.base import Predictions
from leuk.data.datamodule import CNMCDataModule
from leuk.data.rules import Folds, Thesis
from leuk.metrics.area import cell_areas
from leuk.metrics.calibration import apply_temperature
from leuk.metrics.classification import all_metrics
from leuk.metrics.referral import achieved, choose_band
from leuk.metrics.thresholds import choose_thresholds
from leuk.runs.evaluate import (
    assess,
    assess_area,
    assess_baselines,
    baseline_scores,
    evaluate,
    measure_images,
    sample_of,
    save_predictions,
    save_subjects,
)
from leuk.runs.record import SCHEMA, Record, RunId, as_metrics

RUN = RunId("cnn", "none", "none", "folds", seed=3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(phantom: Path, artifacts: Path) -> CNMCDataModule:
    data = CNMCDataModule(
        str(phantom),
        Folds(train=["fold_0"], val=0.3, test=["fold_1"]),
        resolution=32,
        cache=str(artifacts),
    )
    data.setup()
    return data


@pytest.fixture(scope="module")
def predictions(data: CNMCDataModule) -> dict[str, Predictions]:
    generator = torch.Generator().manual_seed(0)
    predictions = {}
    for stage in ("val", "test"):
        images = data.stage(stage)
        labels = torch.tensor(images["label"].to_numpy(np.int64))
        noise = torch.randn(len(labels), generator=generator, dtype=torch.float64)
        # Overconfident by a factor of two, and biased towards leukemia.
        scores = torch.sigmoid(2 * (2 * (labels - 0.5) + noise + 1))
        predictions[stage] = Predictions(torch.tensor(images.index.to_numpy()), scores, labels)
    return predictions


def test_thresholds_and_temperature_come_from_validation(
    data: CNMCDataModule, predictions: dict[str, Predictions]
) -> None:
    found = assess(data, predictions)
    val, test = predictions["val"], predictions["test"]
    patients = data.stage("val")["patient"].to_numpy().astype(str)
    chosen = choose_thresholds(val.scores, val.labels, patients)
    assert {k: v["value"] for k, v in found.metrics["thresholds"].items()} == chosen
    calibrated = apply_temperature(test.scores, found.temperature)
    assert found.temperature > 1
    patients = sample_of(data, test).subjects
    expected = all_metrics(test.scores, test.labels, chosen, calibrated, patients)
    assert {k: v["value"] for k, v in found.metrics["test"].items()} == expected
    # Other test labels change neither thresholds nor temperature.
    swapped = Predictions(test.rows, test.scores, 1 - test.labels)
    again = assess(data, {"val": val, "test": swapped})
    assert again.metrics["thresholds"] == found.metrics["thresholds"]
    assert again.temperature == found.temperature
    assert again.metrics["val"] == found.metrics["val"]
    assert again.referral["band"] == found.referral["band"]
    # The band is that of validation images at the Youden threshold.
    band = choose_band(found.samples["val"], chosen["youden"])
    assert found.referral["band"] == asdict(band) | {"reason": band.reason}
    test_stage = achieved(found.samples["test"], chosen["youden"], band)
    assert found.referral["test"] == asdict(test_stage)


def test_metrics_have_intervals_over_patients(
    data: CNMCDataModule, predictions: dict[str, Predictions]
) -> None:
    found = assess(data, predictions)
    for stage in ("val", "test"):
        for name, metric in found.metrics[stage].items():
            assert metric["low"] is not None, name
            assert metric["high"] is not None
            assert metric["low"] <= metric["value"] + 1e-6
            assert metric["value"] <= metric["high"] + 1e-6
        patients = data.stage(stage)["patient"].astype(str)
        assert found.samples[stage].subjects.tolist() == patients.tolist()
    few = [text.partition(":")[0] for text in found.warnings]
    assert "val" in few


def test_baselines_have_intervals_and_thresholds_of_their_own(data: CNMCDataModule) -> None:
    scores = baseline_scores(data, measure_images(data))
    stages = [data.stage("val"), data.stage("test")]
    assert scores.index.tolist() == [row for stage in stages for row in stage.index]
    found = assess_baselines(data, scores)
    assert list(found) == ["majority", "area", "morphology"]
    assert found["majority"]["auroc"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert found["majority"]["specificity"]["value"] == 0
    for name in ("area", "morphology"):
        auroc = found[name]["auroc"]
        assert auroc["low"] is not None
        assert auroc["low"] < auroc["value"] < auroc["high"]
        assert set(found[name]) == set(found["majority"])
        assert {"sensitivity@sensitivity95", "brier_calibrated"} <= set(found[name])


def test_predictions_and_subjects_are_saved(
    data: CNMCDataModule, predictions: dict[str, Predictions], tmp_path: Path
) -> None:
    found = assess(data, predictions)
    scores = baseline_scores(data, measure_images(data))
    save_predictions(tmp_path / "p.csv", data, predictions, found.temperature, scores, RUN)
    table = pd.read_csv(tmp_path / "p.csv")
    assert list(table.columns) == [
        *("stage", "path", "subject", "patient", "label", "score", "calibrated", "split", "seed"),
        *("baseline_majority", "baseline_area", "baseline_morphology"),
    ]
    assert len(table) == sum(len(found.rows) for found in predictions.values())
    test = table[table["stage"] == "test"]
    np.testing.assert_array_equal(test["score"], predictions["test"].scores)
    np.testing.assert_array_equal(test["calibrated"], found.samples["test"].calibrated)
    np.testing.assert_array_equal(
        test["baseline_area"], scores["area"][predictions["test"].rows.numpy()]
    )
    assert set(table["seed"]) == {3}

    save_subjects(tmp_path / "s.csv", found.samples)
    subjects = pd.read_csv(tmp_path / "s.csv")
    assert list(subjects.columns) == ["stage", "subject", "label", "images", "correct", "score"]
    for stage, table in subjects.groupby("stage"):
        assert table["images"].sum() == len(predictions[str(stage)].rows)
        share = (table["images"] * table["correct"]).sum() / table["images"].sum()
        assert share == pytest.approx(found.metrics[str(stage)]["accuracy"]["value"])


def test_images_that_validate_and_test_are_predicted_once_per_stage(
    phantom: Path, artifacts: Path, tmp_path: Path
) -> None:
    rule = Thesis(train=["fold_0"], test=["fold_1"])
    data = CNMCDataModule(str(phantom), rule, resolution=32, cache=str(artifacts))
    data.setup()
    images = data.stage("test")
    labels = torch.tensor(images["label"].to_numpy(np.int64))
    one = Predictions(torch.tensor(images.index.to_numpy()), labels * 0.6 + 0.2, labels)
    predictions = {"val": one, "test": one}
    scores = baseline_scores(data, measure_images(data))
    assert scores.index.tolist() == images.index.tolist()
    assert assess_baselines(data, scores)["area"]["auroc"]["value"] > 0.5
    save_predictions(tmp_path / "p.csv", data, predictions, 1.0, scores, RUN)
    saved = pd.read_csv(tmp_path / "p.csv")
    assert saved.groupby("stage").size().to_dict() == {"val": len(images), "test": len(images)}


def test_a_model_that_only_measures_the_area_is_detected(data: CNMCDataModule) -> None:
    rows = torch.tensor(data.stage("test").index.to_numpy())
    batch = data.bank.gather(rows, CPU)
    test = Predictions(rows, cell_areas(batch["images"]).double(), batch["labels"])
    found = assess_area(data, test, cell_areas, CPU)
    whole = assess(data, {"val": test, "test": test}).metrics["test"]["auroc"]["value"]
    assert whole is not None
    one_size = found["one_size"]
    assert abs(one_size["metrics"]["auroc"]["value"] - 0.5) < abs(whole - 0.5)
    assert one_size["metrics"]["auroc"]["value"] == pytest.approx(one_size["area_auroc"])
    assert one_size["area_auroc_before"] == pytest.approx(whole, abs=0.05)
    assert 0 < one_size["target_area"] < 1
    within = found["within_bins"]
    assert abs(within["value"] - 0.5) < abs(whole - 0.5)
    assert len(within["bins"]) == 5
    assert found["area_within_bins"] == pytest.approx(within["value"], abs=0.1)
    json.dumps(found, allow_nan=False)


def test_the_area_is_assessed_on_test_images(
    data: CNMCDataModule,
    predictions: dict[str, Predictions],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("leuk.runs.evaluate.measure_cost", lambda *_, **__: {})
    scorer: Any = SimpleNamespace(
        classifier=SimpleNamespace(predict_logits=None),
        device=CPU,
        scores=cell_areas,
        stage=lambda data, stage: predictions[stage],
    )
    cfg = OmegaConf.create({"data": {"batch_size": 4, "resolution": 32}})
    found = evaluate(cfg, tmp_path, data, scorer, RUN)
    assert found.area == assess_area(data, predictions["test"], cell_areas, CPU)
    assert found.area != assess_area(data, predictions["val"], cell_areas, CPU)


def test_calibration_area_and_cost_survive_writing_and_reading(tmp_path: Path) -> None:
    record = Record(
        RUN,
        "abc",
        metrics={"test": as_metrics({"auroc": 0.9, "mcc": 0.5}, {"auroc": (0.8, 0.95)})},
        calibration={"temperature": 1.7},
        area={
            "within_bins": {"value": 0.8, "low": None, "high": None, "bins": [{"auroc": None}]},
            "area_within_bins": None,
            "one_size": {
                "metrics": as_metrics({"auroc": 0.9}),
                "area_auroc": 0.5,
                "area_auroc_before": 0.8,
            },
        },
        cost=dict(COST),
    )
    record.write(tmp_path)
    again = Record.read(tmp_path)
    assert again == record
    assert again.metrics["test"]["auroc"] == {"value": 0.9, "low": 0.8, "high": 0.95}
    assert again.metrics["test"]["mcc"] == {"value": 0.5, "low": None, "high": None}


def test_an_older_record_without_these_fields_can_be_read(tmp_path: Path) -> None:
    Record(RUN, "abc").write(tmp_path)
    values = json.loads((tmp_path / "record.json").read_text())
    assert values["schema"] == SCHEMA
    for name in ("calibration", "area", "cost"):
        del values[name]
    (tmp_path / "record.json").write_text(json.dumps(values))
    assert Record.read(tmp_path).cost == {}
