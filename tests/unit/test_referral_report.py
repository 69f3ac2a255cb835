"""Referral in records and reports."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf
from sweeps import RUN, SYNTHETIC, predictions, write_run

from leuk.errors import StoreError
from leuk.metrics.referral import choose_band
from leuk.report.load import read_results
from leuk.report.tables import referral_section
from leuk.runs.finished import FinishedRun
from leuk.runs.record import Record

FEW = {"healthy": 2, "leukemic": 12}
SURE: dict[str, Any] = {"healthy": 25, "leukemic": 25, "strength": 3.0}


def finished(sweep: Path, table: pd.DataFrame) -> FinishedRun:
    """A run as far as decisions need it."""
    record = write_run(sweep, RUN, table, calibration={"temperature": 2.0})
    return FinishedRun(sweep / RUN.folder, record, OmegaConf.create())


def test_bands_are_evaluated_on_test_images(tmp_path: Path) -> None:
    for seed in (0, 1):
        run_id = replace(RUN, seed=seed)
        write_run(tmp_path, run_id, predictions(run_id, **SURE))
    (configuration,) = read_results(tmp_path).configurations
    table = referral_section([configuration]).table.iloc[0]
    right = kept = called = 0
    for run in configuration.runs:
        band = choose_band(run.val.sample, run.thresholds["youden"])
        test = run.test.sample
        assert test.calibrated is not None
        leukemic = test.scores >= run.thresholds["youden"]
        stays = ~band.refers(test.calibrated, leukemic)
        called += band.high is not None
        kept += int((stays & leukemic).sum())
        right += int((stays & leukemic & (test.labels == 1)).sum())
    assert kept > 0
    assert (table["runs"], table["bands_leukemic"]) == (2, called)
    assert table["right_leukemic"] == pytest.approx(right / kept)
    assert table["right_leukemic_low"] < table["right_leukemic"] <= table["right_leukemic_high"]


def test_few_validation_patients_refer_everything_with_a_reason(tmp_path: Path) -> None:
    for run_id in (RUN, SYNTHETIC):
        write_run(tmp_path, run_id, predictions(run_id, **FEW))
    text = referral_section(read_results(tmp_path).configurations).markdown
    assert text.count("validation has too few patients (2.0 effective healthy") == 1
    assert "cnn-none, cnn-dcgan" in text
    assert "1.000 [1.00, 1.00]" in text


def test_a_run_is_used_with_the_band_of_its_own_validation_images(tmp_path: Path) -> None:
    run = finished(tmp_path, predictions(RUN, **SURE))
    frozen = run.frozen("youden", 0.8)
    assert frozen.band.high is not None
    assert frozen.test.leukemic.images > 0
    table = pd.read_csv(run.folder / "predictions.csv")
    test = table[table["stage"] == "test"]
    referred = frozen.refers(test["score"].to_numpy())
    assert frozen.test.referred.value == pytest.approx(referred.mean())


def test_patients_named_na_are_patients(tmp_path: Path) -> None:
    table = predictions(RUN, **FEW)
    table["patient"] = table["patient"].replace({"val0-H0": "NA", "val0-H1": "nan"})
    run = finished(tmp_path, table)
    assert run.frozen("youden", 0.9).band.healthy_patients == pytest.approx(2)


def test_predictions_without_patients_are_refused(tmp_path: Path) -> None:
    run = finished(tmp_path, predictions(RUN).drop(columns="patient"))
    with pytest.raises(StoreError, match="patient"):
        run.frozen("youden", 0.9)


def test_validation_images_alone_choose_the_band(tmp_path: Path) -> None:
    """Test scores turned round change what the band achieved, not the band."""
    table = predictions(RUN, **SURE)
    turned = table.assign(score=table["score"].where(table["stage"] == "val", 1 - table["score"]))
    one, other = (
        finished(tmp_path / name, scores).frozen("youden", 0.8)
        for name, scores in (("as_it_is", table), ("turned", turned))
    )
    assert one.band == other.band
    assert one.test.leukemic.value is not None
    assert other.test.leukemic.value is not None
    assert one.test.leukemic.value > 0.8 > other.test.leukemic.value


def test_records_from_before_are_read(tmp_path: Path) -> None:
    write_run(tmp_path, RUN, predictions(RUN, images=2), referral={"threshold": "youden"})
    assert Record.read(tmp_path / RUN.folder).referral == {"threshold": "youden"}
    path = tmp_path / RUN.folder / "record.json"
    values = json.loads(path.read_text())
    del values["referral"]
    path.write_text(json.dumps(values))
    assert Record.read(path.parent).referral == {}
