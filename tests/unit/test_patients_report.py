"""Tests of patients pooled over the folds of a sweep."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sweeps import KFOLD, fold, varied, write_sweep

from leuk.metrics.patients import by_patient, patient_threshold
from leuk.report.derived import baselines
from leuk.report.load import Configuration, read_results
from leuk.report.patients import (
    images_per_decision,
    patient_difference,
    patient_row,
    patient_scores,
    patients_section,
)

SCORE = "mean_logit"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Configuration, ...]:
    """CNN without and with a GAN, three folds and two seeds each."""
    sweep = tmp_path_factory.mktemp("runs") / "s"
    runs = [
        replace(fold(run, number), seed=seed)
        for run in (KFOLD, varied(KFOLD, "dcgan"))
        for number in (1, 2, 3)
        for seed in (0, 1)
    ]
    write_sweep(sweep, runs, healthy=4, leukemic=8, images=6)
    return read_results(sweep).configurations


def test_every_patient_of_every_fold_is_tested_once_per_repeat(
    found: tuple[Configuration, ...],
) -> None:
    table = patient_scores(found[0], SCORE)
    assert len(table) == 2 * 3 * 12
    assert not table.duplicated(["repeat", "patient"]).any()
    assert (table["images"] == 6).all()
    # Each fold decides by the threshold of its own validation patients, on calibrated scores.
    for run in found[0].runs:
        val, test = by_patient(run.val.sample), by_patient(run.test.sample)
        own = table.query("fold == @run.id.fold and repeat == @run.id.seed")
        assert (own["threshold"] == patient_threshold(val.scores, val.labels)).all()
        np.testing.assert_array_equal(own["score"], test.scores)


def test_pooled_values_are_means_over_repeats_with_the_interval_of_one(
    found: tuple[Configuration, ...],
) -> None:
    table = patient_scores(found[0], SCORE)
    row, once = patient_row(table), patient_row(table.query("repeat == 0"))
    assert (row["leukemic"], row["healthy"], row["images"]) == (24, 12, 6)
    other = patient_row(table.query("repeat == 1"))
    assert row["auroc"] == pytest.approx((once["auroc"] + other["auroc"]) / 2)
    widths = [one["auroc_high"] - one["auroc_low"] for one in (row, once, other)]
    assert widths[0] == pytest.approx((widths[1] + widths[2]) / 2)
    assert row["auroc_low"] < row["auroc"] <= row["auroc_high"]
    assert row["val"] >= 0.5


def test_differences_are_paired_by_patient(found: tuple[Configuration, ...]) -> None:
    one, other = (patient_scores(each, SCORE) for each in found)
    forth, back = (patient_difference(*pair) for pair in ((one, other), (other, one)))
    assert forth["difference"] == pytest.approx(-back["difference"])
    assert patient_difference(one, one)["p"] == 1
    (area,) = (each for each in baselines(found) if "area" in each.name)
    against = patient_difference(one, patient_scores(area, SCORE))
    assert against["low"] < against["difference"] < against["high"]


def test_more_images_per_patient_change_a_decision(found: tuple[Configuration, ...]) -> None:
    curve = images_per_decision(found[0], SCORE, draws=5)
    assert curve["images"].tolist() == [1, 2, 5, 10, 20, 0]
    assert curve["auroc"].iloc[0] < curve["auroc"].iloc[-1]
    # Six images per patient: a draw of ten is all of them.
    assert curve["auroc"].iloc[3] == pytest.approx(curve["auroc"].iloc[-1])


def test_section_has_models_and_baselines(found: tuple[Configuration, ...], tmp_path: Path) -> None:
    section = patients_section(found, baselines(found))
    section.write(tmp_path)
    text = (tmp_path / "patients.md").read_text()
    assert "AUROC minus area" in text
    assert section.table["name"].tolist() == [
        *(one.title for one in found), "baseline: majority", "baseline: area"
    ]  # fmt: skip
    assert section.table["from_area_p"].notna().sum() == len(found)
    assert "No predictions" in patients_section([], []).markdown
