"""The ensemble of CNN and ViT that the report makes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sweeps import KFOLD, RUN, fold, predictions, write_run, write_sweep

from leuk.metrics.calibration import fit_temperature
from leuk.metrics.thresholds import choose_thresholds
from leuk.report.derived import ensembles
from leuk.report.load import read_results
from leuk.report.page import write_report


def test_the_ensemble_is_the_mean_of_matching_predictions(tmp_path: Path) -> None:
    vit = replace(KFOLD, model="vit")
    write_sweep(tmp_path, [fold(KFOLD, 0), fold(KFOLD, 1), fold(vit, 1), fold(vit, 2)])
    (average,) = ensembles(read_results(tmp_path).configurations)
    assert average.title == "ensemble-none"
    (run,) = average.runs
    assert run.id == fold(replace(KFOLD, model="ensemble"), 1)
    both = [predictions(fold(run_id, 1)) for run_id in (KFOLD, vit)]
    for name, stage in (("val", run.val), ("test", run.test)):
        one, two = (of[of["stage"] == name].set_index("path").loc[stage.paths] for of in both)
        np.testing.assert_allclose(
            stage.sample.scores, (one["score"] + two["score"]) / 2, rtol=1e-9
        )
        assert stage.sample.labels.tolist() == one["label"].tolist()
    val = run.val.sample
    assert run.thresholds == choose_thresholds(val.scores, val.labels, val.subjects)
    odds = np.log(val.scores / (1 - val.scores)) / fit_temperature(val.scores, val.labels)
    np.testing.assert_allclose(val.calibrated, 1 / (1 + np.exp(-odds)), rtol=1e-9)


def test_no_ensemble_of_models_with_different_test_images(tmp_path: Path) -> None:
    write_run(tmp_path, RUN)
    other = predictions(replace(RUN, model="vit"))
    write_run(tmp_path, replace(RUN, model="vit"), other.assign(path="other/" + other["path"]))
    assert ensembles(read_results(tmp_path).configurations) == []


def test_the_ensemble_has_a_row_in_the_table(tmp_path: Path) -> None:
    write_sweep(tmp_path, [RUN, replace(RUN, model="vit")])
    write_report(tmp_path)
    rows = pd.read_csv(tmp_path / "report/table.csv").set_index("configuration")
    assert rows.loc["ensemble-none", "kind"] == "configuration"
    assert rows.loc["ensemble-none", "auroc"] > rows.loc[["cnn-none", "vit-none"], "auroc"].max()
