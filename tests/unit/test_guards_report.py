"""Tables, baselines and remarks of a report, by hand-computed values."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sweeps import CELL, COST, predictions, record_of, write_run

from leuk.evaluate.sample import Sample
from leuk.grid.record import as_metrics
from leuk.grid.run_id import LEAKY, RunId
from leuk.report.baselines import baseline_of, baselines
from leuk.report.costs import costs_of, costs_section
from leuk.report.decisions import confusion, confusion_figure
from leuk.report.gan_tables import quality_tables
from leuk.report.leaking import leaking_gains
from leuk.report.predictions import read_predictions
from leuk.report.remarks import remarks_on
from leuk.report.results import Results, read_results
from leuk.report.rows import Row, configuration_rows, draws_for, run_rows
from leuk.report.sections import Grid
from leuk.report.tables import CALIBRATION, CHOSEN, COLUMNS


@pytest.fixture
def results(tmp_path: Path) -> Results:
    write_run(tmp_path / "s", CELL)
    return read_results(tmp_path / "s")


def table_of(results: Results, part: str) -> pd.DataFrame:
    table = predictions(results.groups[0].runs[0].id)
    return table[table["stage"] == part].sort_values("path", kind="stable")


def test_predictions_are_read_column_by_column(results: Results) -> None:
    run = results.groups[0].runs[0]
    for part, found in (("val", run.val), ("test", run.test)):
        expected = table_of(results, part)
        for column, values in (
            ("score", found.sample.scores),
            ("calibrated", found.sample.calibrated),
            ("label", found.sample.labels),
            ("baseline_area", found.baselines["area"]),
        ):
            np.testing.assert_allclose(values, expected[column])
        assert found.sample.subjects.tolist() == expected["patient"].tolist()
        assert found.paths.tolist() == expected["path"].tolist()


def test_files_in_another_order_are_the_same(tmp_path: Path) -> None:
    table = predictions(CELL, cells=3)
    table["baseline_area"] = np.linspace(0, 1, len(table))
    table.to_csv(tmp_path / "a.csv", index=False)
    table[::-1].to_csv(tmp_path / "b.csv", index=False)
    one, other = (read_predictions(tmp_path / f"{name}.csv", {}) for name in "ab")
    for part in ("val", "test"):
        np.testing.assert_array_equal(one[part].sample.scores, other[part].sample.scores)
        np.testing.assert_array_equal(one[part].baselines["area"], other[part].baselines["area"])


def test_a_baseline_is_judged_on_its_own_scores_and_thresholds(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def choose(scores: Any, labels: Any, *persons: Any) -> dict[str, float]:
        given.append((scores, labels))
        return {"default": 0.5}

    monkeypatch.setattr("leuk.report.baselines.choose_thresholds", choose)
    group = results.groups[0]
    line = baseline_of(group, "area")
    assert line is not None
    val, test = table_of(results, "val"), table_of(results, "test")
    np.testing.assert_allclose(line.runs[0].test.sample.scores, test["baseline_area"])
    np.testing.assert_allclose(line.runs[0].val.sample.scores, val["baseline_area"])
    assert "baseline: area" in [one.title for one in baselines([group])]
    area = [np.allclose(scores, val["baseline_area"]) for scores, _ in given]
    assert sum(area) == 1
    assert given[area.index(True)][1].tolist() == val["label"].tolist()


def test_a_confusion_matrix_by_hand(results: Results) -> None:
    group = results.groups[0]
    run = replace(group.runs[0], thresholds={"default": 0.5, "youden": 0.8})
    test = table_of(results, "test")
    for cut, threshold in (("default", 0.5), ("youden", 0.8)):
        called = test["score"] >= threshold
        expected = [
            [int(((test["label"] == label) & (called == says)).sum()) for says in (False, True)]
            for label in (0, 1)
        ]
        assert confusion(replace(group, runs=(run,)), cut).tolist() == expected


def test_figures_of_a_line_are_of_test_cells_at_the_run_s_thresholds(results: Results) -> None:
    group = results.groups[0]
    (line,) = configuration_rows([group], 200)
    test = table_of(results, "test")
    for suffix, threshold in (("", 0.5), ("@youden", group.runs[0].thresholds["youden"])):
        called = test["score"] >= threshold
        sick = test["label"] == 1
        assert line.metrics[f"sensitivity{suffix}"][0] == pytest.approx(called[sick].mean())
        assert line.metrics[f"specificity{suffix}"][0] == pytest.approx((~called[~sick]).mean())
    metrics = {"test": as_metrics({"mcc": 0.5}, {"mcc": (0.4, 0.7)})}
    record = replace(results.records[0], metrics=metrics)
    without_predictions = replace(group, records=(record,), runs=())
    (run,) = run_rows(replace(results, groups=(without_predictions,)))
    assert run.metrics == {"mcc": (0.5, 0.4, 0.7)}


def test_runs_that_share_subjects_have_means_at_their_own_thresholds(results: Results) -> None:
    """Two runs of a patient's other images have no interval; each is cut at its own threshold."""
    group = results.groups[0]
    run = group.runs[0]
    sample = run.test.sample
    fewer = Sample(sample.scores[1:], sample.labels[1:], sample.subjects[1:])
    part = replace(run.test, sample=fewer)
    runs = (run, replace(run, test=part, thresholds={"default": 0.5, "youden": 0.9}))
    runs = (replace(runs[0], thresholds={"default": 0.5, "youden": 0.2}), runs[1])
    (line,) = configuration_rows([replace(group, runs=runs)], 200)
    assert line.note.startswith("no interval: subjects ")
    for suffix, cuts in (("", (0.5, 0.5)), ("@youden", (0.2, 0.9))):
        found = [
            (one.test.sample.scores >= cut)[one.test.sample.labels == 1].mean()
            for one, cut in zip(runs, cuts, strict=True)
        ]
        expected = (pytest.approx(np.mean(found)), None, None)
        assert line.metrics[f"sensitivity{suffix}"] == expected


@pytest.mark.parametrize(("runs", "draws"), [(1, 1000), (60, 1000), (100, 600), (1000, 200)])
def test_fewer_resamples_for_more_runs(runs: int, draws: int) -> None:
    group: Any = SimpleNamespace(runs=range(runs // 2))
    other: Any = SimpleNamespace(runs=range(runs - runs // 2))
    assert draws_for([group, other]) == draws


def test_shares_of_a_confusion_matrix_are_of_the_class(results: Results) -> None:
    group = results.groups[0]
    (axes,) = confusion_figure([group]).axes
    words = [text.get_text() for text in axes.texts]
    for cut, place in (("default", 0), ("youden", 5)):
        counts = confusion(group, cut)
        shares = (counts / counts.sum(axis=1, keepdims=True)).ravel()
        assert words[place : place + 4] == [f"{share:.2f}" for share in shares]


def test_a_fold_is_represented_by_its_lowest_seed(results: Results) -> None:
    group = results.groups[0]
    runs = [replace(group.runs[0], id=replace(CELL, seed=seed)) for seed in (2, 0, 1)]
    assert [run.id.seed for run in replace(group, runs=tuple(runs)).first_seed] == [0]


GAN_FIGURES = {
    "FID": ("fid", 0.01),
    "KID": ("kid", 0.02),
    "Inception Score": ("inception_score", 0.03),
    "Frechet distance": ("frechet_distance", 0.04),
    "kernel distance": ("kernel_distance", 0.05),
    "class score": ("class_score", 0.06),
    "SSIM nearest": ("ssim", 0.07),
    "SSIM in cell": ("ssim_mask", 0.08),
    "MS-SSIM diversity": ("diversity", 0.09),
    "precision": ("precision", 0.10),
    "recall": ("recall", 0.11),
    "density": ("density", 0.12),
    "coverage": ("coverage", 0.13),
    "morphology": ("morphology", 0.14),
    "told apart": ("two_sample_auroc", 0.15),
}


def test_columns_of_the_gans_hold_the_figures_of_their_headings() -> None:
    names = ("made", "real", "other_class", "mean_image", "black")
    quality = {
        "rows": {
            row: {key: number + value for key, value in GAN_FIGURES.values()}
            for number, row in enumerate(names)
        },
        "memorization": {space: {"closer_share": 0.0} for space in ("features", "pixels")},
        "extractor": "x",
        "n": 20,
        "usefulness": {"synthetic": 0.5, "real": 0.9},
        "warnings": [],
    }
    (grid, *_), _ = quality_tables({"dcgan": {"quality": {"hem": quality}, "held_out": "val"}})
    assert isinstance(grid, Grid)
    assert grid.header == ("cells", "class", "n", *GAN_FIGURES)
    expected = [
        ("hem", "20", *(f"{number + value:.3f}" for _, value in GAN_FIGURES.values()))
        for number in range(5)
    ]
    assert [row[1:] for row in grid.rows] == expected


def test_columns_hold_the_figures_of_their_headings() -> None:
    assert {heading: COLUMNS[heading] for heading in _MAIN} == _MAIN
    for heading, figure in CHOSEN.items():
        assert figure.endswith("@youden" if "Youden" in heading else "@sensitivity95")
        assert figure.startswith(_NAMES[heading.partition(".")[0]])
    for heading, figure in CALIBRATION.items():
        assert figure.startswith(heading.split()[0].lower())
        assert figure.endswith("_calibrated") is ("calibrated" in heading)


_MAIN = {
    "AUROC": "auroc",
    "AUPRC": "auprc",
    "bal. acc.": "balanced_accuracy",
    "sens.": "sensitivity",
    "spec.": "specificity",
    "F1 macro": "f1_macro",
    "F1 weighted": "f1_weighted",
    "MCC": "mcc",
}
_NAMES = {"bal": "balanced_accuracy", "sens": "sensitivity", "spec": "specificity"}


def test_what_leaking_gains_by_hand() -> None:
    """A leaky run is compared with the honest one that differs in the fewest settings."""
    table = predictions(CELL, cells=3)

    def scored(cell: RunId, auroc: float) -> object:
        return record_of(cell, table, metrics={"test": as_metrics({"auroc": auroc})})

    leaky = replace(CELL, split=f"random{LEAKY}", variant="epochs_3")
    records = [
        scored(leaky, 0.95),
        scored(replace(CELL, variant="epochs_3"), 0.80),
        scored(replace(CELL, variant="lr_1-width_2"), 0.60),
    ]
    (line,) = leaking_gains(records)  # type: ignore[arg-type]
    assert "0.950" in line
    assert line.endswith("of 0.800: leaking seems to gain +0.150")


def test_costs_are_medians_and_an_ensemble_s_the_sum_of_its_members(tmp_path: Path) -> None:
    sweep = tmp_path / "s"
    for seed, latency in enumerate((2.0, 3.0, 100.0)):
        write_run(sweep, replace(CELL, seed=seed), cost={**COST, "latency_ms": latency})
    write_run(
        sweep, replace(CELL, model="vit"), cost={**COST, "latency_ms": 5.0, "flops": 7_000_000}
    )
    groups = read_results(sweep).groups
    ensemble = replace(groups[0], run=replace(groups[0].run, model="ensemble"), records=())
    found = costs_of([*groups, ensemble])
    assert found[groups[0].run]["latency_ms"] == 3
    both = found[ensemble.run]
    assert (both["latency_ms"], both["flops"], both["memory_bytes"]) == (8, 57_000_000, None)
    section = costs_section([*groups, ensemble], found)
    assert " 57.0 " in section.markdown


def remarks(results: Results, auroc: tuple[float, float | None, float | None]) -> list[str]:
    line = Row("x", "configuration", {"auroc": auroc})
    return [one.kind for one in remarks_on(results, results.groups, [line])]


def test_an_interval_that_reaches_the_area_s_auroc_is_remarked_on(results: Results) -> None:
    test = table_of(results, "test")
    pairs = np.subtract.outer(
        test.loc[test["label"] == 1, "baseline_area"].to_numpy(),
        test.loc[test["label"] == 0, "baseline_area"].to_numpy(),
    )
    area = float(((pairs > 0) + (pairs == 0) / 2).mean())
    assert "area" in remarks(results, (area + 0.05, area - 0.01, 1.0))
    assert "area" in remarks(results, (area - 0.01, None, None))
    assert "area" not in remarks(results, (area + 0.05, area + 0.01, 1.0))


def test_runs_that_are_not_complete_are_remarked_on(results: Results) -> None:
    group = results.groups[0]
    stopped = replace(results.records[0], status="running")
    found = replace(results, groups=(replace(group, records=(stopped,)),))
    line = Row("x", "configuration", {})
    assert "failed" in [one.kind for one in remarks_on(found, found.groups, [line])]


def test_few_subjects_are_remarked_on(results: Results) -> None:
    """Four healthy persons are fewer than six."""
    assert "few" in remarks(results, (0.9, 0.8, 1.0))
