"""Tables, baselines and remarks of a report, by hand-computed values."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sweeps import COST, RUN, predictions, record_of, write_run

from leuk.report.costs import costs_of, costs_section
from leuk.report.derived import baseline_of, baselines
from leuk.report.figures import confusion
from leuk.report.load import Results, read_predictions, read_results, stages_of
from leuk.report.remarks import leaking_gains, remarks_on
from leuk.report.rows import Row, configuration_rows, run_rows
from leuk.report.tables import metric_columns
from leuk.runs.record import RunId, as_metrics


@pytest.fixture
def results(tmp_path: Path) -> Results:
    write_run(tmp_path / "s", RUN)
    return read_results(tmp_path / "s")


def table_of(results: Results, stage: str) -> pd.DataFrame:
    table = predictions(results.configurations[0].runs[0].id)
    return table[table["stage"] == stage].sort_values("path", kind="stable")


def test_predictions_are_read_column_by_column(results: Results) -> None:
    run = results.configurations[0].runs[0]
    for stage, found in (("val", run.val), ("test", run.test)):
        expected = table_of(results, stage)
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
    table = predictions(RUN, images=3)
    table["baseline_area"] = np.linspace(0, 1, len(table))
    table.to_csv(tmp_path / "a.csv", index=False)
    table[::-1].to_csv(tmp_path / "b.csv", index=False)
    one, other = (stages_of(read_predictions(tmp_path / f"{name}.csv"), name) for name in "ab")
    for stage in ("val", "test"):
        np.testing.assert_array_equal(one[stage].sample.scores, other[stage].sample.scores)
        np.testing.assert_array_equal(one[stage].baselines["area"], other[stage].baselines["area"])


def test_a_baseline_uses_its_own_scores_and_thresholds(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def choose(scores: Any, labels: Any, *patients: Any) -> dict[str, float]:
        given.append((scores, labels))
        return {"default": 0.5}

    monkeypatch.setattr("leuk.report.derived.choose_thresholds", choose)
    configuration = results.configurations[0]
    baseline = baseline_of(configuration, "area")
    assert baseline is not None
    val, test = table_of(results, "val"), table_of(results, "test")
    np.testing.assert_allclose(baseline.runs[0].test.sample.scores, test["baseline_area"])
    np.testing.assert_allclose(baseline.runs[0].val.sample.scores, val["baseline_area"])
    assert "baseline: area" in [one.title for one in baselines([configuration])]
    area = [np.allclose(scores, val["baseline_area"]) for scores, _ in given]
    assert sum(area) == 1
    assert given[area.index(True)][1].tolist() == val["label"].tolist()


def test_a_confusion_matrix_by_hand(results: Results) -> None:
    configuration = results.configurations[0]
    run = replace(configuration.runs[0], thresholds={"default": 0.5, "youden": 0.8})
    test = table_of(results, "test")
    for cut, threshold in (("default", 0.5), ("youden", 0.8)):
        called = test["score"] >= threshold
        expected = [
            [int(((test["label"] == label) & (called == says)).sum()) for says in (False, True)]
            for label in (0, 1)
        ]
        assert confusion(replace(configuration, runs=(run,)), cut).tolist() == expected


def test_metrics_use_test_images_and_the_thresholds_of_the_run(results: Results) -> None:
    configuration = results.configurations[0]
    (row,) = configuration_rows([configuration], 200)
    test = table_of(results, "test")
    for suffix, threshold in (("", 0.5), ("@youden", configuration.runs[0].thresholds["youden"])):
        called = test["score"] >= threshold
        sick = test["label"] == 1
        assert row.metrics[f"sensitivity{suffix}"][0] == pytest.approx(called[sick].mean())
        assert row.metrics[f"specificity{suffix}"][0] == pytest.approx((~called[~sick]).mean())
    metrics = {"test": as_metrics({"mcc": 0.5}, {"mcc": (0.4, 0.7)})}
    record = replace(results.records[0], metrics=metrics)
    without_predictions = replace(configuration, records=(record,), runs=())
    (run,) = run_rows(replace(results, configurations=(without_predictions,)))
    assert run.metrics == {"mcc": (0.5, 0.4, 0.7)}


def test_columns_match_their_headings() -> None:
    tables = metric_columns()
    assert {heading: tables["main"][heading] for heading in _MAIN} == _MAIN
    assert all("_patients" in metric for metric in tables["patients"].values())
    assert tables["calibration"]["ECE (calibrated)"] == "ece_calibrated"
    for heading, metric in (tables["chosen"] | tables["patients"]).items():
        assert metric.startswith(_NAMES[heading.partition(".")[0]])
        for name, end in (("Youden", "@youden"), ("0.95", "@sensitivity95")):
            assert metric.endswith(end) is (name in heading)
    for heading, metric in tables["calibration"].items():
        assert metric.startswith(heading.split()[0].lower())
        assert metric.endswith("_calibrated") is ("calibrated" in heading)


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
_NAMES = {
    "AUROC": "auroc",
    "bal": "balanced_accuracy",
    "sens": "sensitivity",
    "spec": "specificity",
}


def test_apparent_gain_by_hand() -> None:
    """A leaky run is compared with the honest one that differs in the fewest settings."""
    table = predictions(RUN, images=3)

    def scored(run_id: RunId, auroc: float) -> object:
        return record_of(run_id, table, metrics={"test": as_metrics({"auroc": auroc})})

    leaky = replace(RUN, split="random", leaky=True, settings={"fit.epochs": 3})
    records = [
        scored(leaky, 0.95),
        scored(replace(RUN, settings={"fit.epochs": 3}), 0.80),
        scored(replace(RUN, settings={"lr": 1, "width": 2}), 0.60),
    ]
    (text,) = leaking_gains(records)  # type: ignore[arg-type]
    assert "0.950" in text
    assert text.endswith("of 0.800: apparent gain +0.150")


def test_costs_are_medians_and_an_ensemble_s_the_sum_of_its_members(tmp_path: Path) -> None:
    sweep = tmp_path / "s"
    for seed, latency in enumerate((2.0, 3.0, 100.0)):
        write_run(sweep, replace(RUN, seed=seed), cost={**COST, "latency_ms": latency})
    write_run(
        sweep, replace(RUN, model="vit"), cost={**COST, "latency_ms": 5.0, "flops": 7_000_000}
    )
    configurations = read_results(sweep).configurations
    ensemble = replace(
        configurations[0], run=replace(configurations[0].run, model="ensemble"), records=()
    )
    found = costs_of([*configurations, ensemble])
    assert found[configurations[0].run]["latency_ms"] == 3
    both = found[ensemble.run]
    assert (both["latency_ms"], both["flops"], both["memory_bytes"]) == (8, 57_000_000, None)
    section = costs_section([*configurations, ensemble], found)
    assert " 57.0 " in section.markdown


def remarks(results: Results, auroc: tuple[float, float | None, float | None]) -> list[str]:
    row = Row("x", "configuration", RUN, {"auroc": auroc})
    return [one.kind for one in remarks_on(results, results.configurations, [row])]


def test_an_interval_that_includes_the_auroc_of_area_is_remarked(results: Results) -> None:
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
    configuration = results.configurations[0]
    stopped = replace(results.records[0], status="running")
    found = replace(results, configurations=(replace(configuration, records=(stopped,)),))
    row = Row("x", "configuration", RUN, {})
    assert "failed" in [one.kind for one in remarks_on(found, found.configurations, [row])]


def test_few_subjects_are_remarked_on(results: Results) -> None:
    """Four healthy patients are fewer than six."""
    assert "few" in remarks(results, (0.9, 0.8, 1.0))
