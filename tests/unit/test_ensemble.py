"""The ensemble of CNN and ViT that the report makes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sweeps import CELL, KFOLD, fold, predictions, write_run, write_sweep

from leuk.evaluate.calibration import fit_temperature
from leuk.evaluate.thresholds import choose_thresholds
from leuk.report.ensemble import ensembles
from leuk.report.results import read_results
from leuk.report.sweep_report import write_report


def test_the_ensemble_is_the_mean_of_matching_predictions(tmp_path: Path) -> None:
    vit = replace(KFOLD, model="vit")
    write_sweep(tmp_path, [fold(KFOLD, 0), fold(KFOLD, 1), fold(vit, 1), fold(vit, 2)])
    (made,) = ensembles(read_results(tmp_path).groups)
    assert made.title == "ensemble-none"
    (run,) = made.runs
    assert run.id == fold(replace(KFOLD, model="ensemble"), 1)
    both = [predictions(fold(cell, 1)) for cell in (KFOLD, vit)]
    for name, part in (("val", run.val), ("test", run.test)):
        one, two = (of[of["stage"] == name].set_index("path").loc[part.paths] for of in both)
        np.testing.assert_allclose(part.sample.scores, (one["score"] + two["score"]) / 2, rtol=1e-9)
        assert part.sample.labels.tolist() == one["label"].tolist()
    val = run.val.sample
    assert run.thresholds == choose_thresholds(val.scores, val.labels, val.subjects)
    odds = np.log(val.scores / (1 - val.scores)) / fit_temperature(val.scores, val.labels)
    np.testing.assert_allclose(val.calibrated, 1 / (1 + np.exp(-odds)), rtol=1e-9)


def test_no_ensemble_of_models_that_judged_other_cells(tmp_path: Path) -> None:
    write_run(tmp_path, CELL)
    other = predictions(replace(CELL, model="vit"))
    write_run(tmp_path, replace(CELL, model="vit"), other.assign(path="other/" + other["path"]))
    assert ensembles(read_results(tmp_path).groups) == []


@pytest.mark.parametrize("stage", ["val", "test"])
def test_no_ensemble_of_models_that_scored_other_images_of_a_stage(
    stage: str, tmp_path: Path
) -> None:
    write_run(tmp_path, CELL)
    other = predictions(replace(CELL, model="vit"))
    paths = other["path"].where(other["stage"] != stage, "other/" + other["path"])
    write_run(tmp_path, replace(CELL, model="vit"), other.assign(path=paths))
    assert ensembles(read_results(tmp_path).groups) == []


def test_the_ensemble_is_a_line_of_the_table(tmp_path: Path) -> None:
    write_sweep(tmp_path, [CELL, replace(CELL, model="vit")])
    write_report(tmp_path)
    rows = pd.read_csv(tmp_path / "report/table.csv").set_index("configuration")
    assert rows.loc["ensemble-none", "kind"] == "configuration"
    assert rows.loc["ensemble-none", "auroc"] > rows.loc[["cnn-none", "vit-none"], "auroc"].max()
