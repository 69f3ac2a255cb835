import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sweeps import KFOLD, RUN, fold, predictions, record_of, varied, write_run, write_sweep

from leuk.errors import StoreError
from leuk.metrics.calibration import apply_temperature
from leuk.metrics.classification import all_metrics
from leuk.report.derived import baselines
from leuk.report.load import TABLE, Configuration, read_results, row_names
from leuk.report.page import build_report, write_report
from leuk.report.rows import Row, configuration_rows, draws_for
from leuk.report.table import interval_text
from leuk.report.tables import NOTES
from leuk.runs.record import Record, RunWarning
from leuk.store import write_text


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all else and has tests of its own."""
    monkeypatch.setattr("leuk.report.page.figures_of", lambda *arguments: [])


def table(sweep: Path) -> pd.DataFrame:
    return pd.read_csv(sweep / "report/table.csv").set_index("configuration")


def test_folds_and_seeds_share_a_row_and_keep_their_own_rows(tmp_path: Path) -> None:
    run_ids = [fold(replace(KFOLD, seed=seed), n) for seed in (0, 1) for n in range(3)]
    write_sweep(tmp_path, run_ids)
    text = write_report(tmp_path)
    assert (tmp_path / "report/table.md").read_text() == text + "\n"
    rows = table(tmp_path)
    (title,) = rows.index[rows["kind"] == "configuration"]
    assert title == "cnn-none (3 folds, 2 seeds)"
    assert rows.loc[title, "runs"] == 6
    single = [Record.read(tmp_path / run_id.folder).metrics["test"] for run_id in run_ids]
    for name in ("auroc", "mcc", "balanced_accuracy@youden", "ece_calibrated"):
        values = [figures[name]["value"] for figures in single]
        assert rows.loc[title, name] == pytest.approx(np.mean(values)), name
        assert (
            rows.loc[title, f"{name}_low"] < rows.loc[title, name] < rows.loc[title, f"{name}_high"]
        )
    runs = rows[rows["kind"] == "run"]
    assert set(runs.index) == {run_id.folder for run_id in run_ids}
    assert runs.loc[fold(replace(KFOLD, seed=1), 2).folder, "fold"] == 2
    assert interval_text(*(rows.loc[title, f"auroc{end}"] for end in ("", "_low", "_high"))) in text


def test_every_baseline_has_one_row_with_an_interval(tmp_path: Path) -> None:
    write_sweep(
        tmp_path, [fold(replace(KFOLD, model=m), n) for m in ("cnn", "vit") for n in (0, 1)]
    )
    write_run(tmp_path, fold(replace(KFOLD, model="hybrid"), 0))
    write_report(tmp_path)
    rows = table(tmp_path)
    found = rows[rows["kind"] == "baseline"]
    assert list(found.index) == ["baseline: majority (2 folds)", "baseline: area (2 folds)"]
    assert found.loc["baseline: majority (2 folds)", "auroc"] == 0.5
    tests = [predictions(fold(KFOLD, n)).query("stage == 'test'") for n in (0, 1)]
    expected = [
        all_metrics(t["baseline_area"].to_numpy(), t["label"].to_numpy(), {"default": 0.5})["auroc"]
        for t in tests
    ]
    area = found.loc["baseline: area (2 folds)"]
    assert area["auroc"] == pytest.approx(np.mean(expected))
    assert area["auroc_low"] < area["auroc"] < area["auroc_high"]


def test_a_configuration_not_better_than_area_alone_is_remarked(tmp_path: Path) -> None:
    good = predictions(RUN, strength=3.0)
    write_run(tmp_path, RUN, good)
    poor = predictions(replace(RUN, model="vit"), strength=0.2)
    poor["baseline_area"] = good["baseline_area"]
    write_run(tmp_path, replace(RUN, model="vit"), poor)
    remarks = [
        line
        for line in write_report(tmp_path).splitlines()
        if "not significantly better than cell area alone" in line
    ]
    assert len(remarks) == 1
    assert remarks[0].endswith("vit-none")


@pytest.mark.parametrize(("healthy", "warned"), [(3, True), (8, False)])
def test_few_patients_cause_a_warning(tmp_path: Path, healthy: int, warned: bool) -> None:
    write_sweep(tmp_path, [RUN], healthy=healthy)
    text = "only 3.0 effective healthy subjects (of 3)"
    assert (text in write_report(tmp_path)) is warned


def test_patients_of_all_folds_are_counted_together(tmp_path: Path) -> None:
    write_sweep(tmp_path, [fold(KFOLD, n) for n in range(3)], healthy=3)
    assert "healthy subjects" not in write_report(tmp_path)


def test_failed_unfinished_and_damaged_runs_are_reported(tmp_path: Path) -> None:
    write_sweep(tmp_path, [fold(KFOLD, n) for n in range(3)])
    failed = Record(replace(RUN, model="vit"), "abc")
    failed.fail(RuntimeError("no luck"))
    unfinished = Record(replace(RUN, model="hybrid"), "abc")
    for record in (failed, unfinished):
        record.write(tmp_path / record.run.folder)
    write_text(tmp_path / "vit-dcgan-folds-s0/.lock", "")
    (tmp_path / "report").mkdir()
    broken = tmp_path / "cnn-wgan-folds-s0"
    broken.mkdir()
    (broken / "record.json").write_text("{")
    text = write_report(tmp_path)
    assert "vit-none-folds-s0: failed: no luck" in text
    assert "hybrid-none-folds-s0: running: not finished" in text
    assert "vit-dcgan-folds-s0: no record.json" in text
    assert "cnn-wgan-folds-s0/record.json: no readable record" in text
    assert len(text.split("- report: no record")) == 1


def test_a_failure_without_a_message_is_reported(tmp_path: Path) -> None:
    write_run(tmp_path, RUN)
    failed = Record(replace(RUN, model="vit"), "abc")
    failed.fail(AssertionError())
    before = Record(replace(RUN, model="hybrid"), "abc", status="failed")
    before.error = {"type": "AssertionError", "message": "", "traceback": ""}
    for record in (failed, before):
        record.write(tmp_path / record.run.folder)
    text = write_report(tmp_path)
    assert "- vit-none-folds-s0: failed: AssertionError" in text
    assert "- hybrid-none-folds-s0: failed: not finished" in text


def test_a_copied_folder_is_not_counted_as_a_run(tmp_path: Path) -> None:
    write_run(tmp_path, RUN)
    shutil.copytree(tmp_path / RUN.folder, tmp_path / f"{RUN.folder}-copy")
    text = write_report(tmp_path)
    assert f"{RUN.folder}-copy: skipped, as its record belongs to {RUN.folder}; move" in text
    assert table(tmp_path).loc["cnn-none", "runs"] == 1


def test_a_fold_missing_in_a_configuration_is_named(tmp_path: Path) -> None:
    write_sweep(tmp_path, [fold(KFOLD, n) for n in range(3)])
    write_sweep(tmp_path, [fold(replace(KFOLD, model="vit"), n) for n in (0, 2)])
    text = write_report(tmp_path)
    assert "vit-none: lacks runs that other configurations have: seed 0 fold 1" in text


def damaged(how: str, content: pd.DataFrame) -> pd.DataFrame:
    if how == "cut":
        return content.iloc[:-5]
    if how == "column":
        return content.drop(columns="calibrated")
    if how == "nan":
        return content.assign(score=content["score"].where(content.index != 3))
    if how == "baseline":
        return content.assign(baseline_area=content["baseline_area"] * 3)
    if how == "range":
        return content.assign(score=content["score"] * 2)
    if how == "huge":
        return content.assign(label=10**30)
    return content[content["stage"] == "val"]


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("cut", "275 rows of stage test, but its record counts 280"),
        ("column", "no column calibrated"),
        ("nan", "values are missing"),
        ("range", r"scores must be in [0, 1]"),
        ("huge", "too large"),
        ("baseline", r"scores must be in [0, 1]"),
        ("stage", "no row of stage test"),
        ("gone", "no readable predictions"),
    ],
)
def test_predictions_that_cannot_be_used_are_named(tmp_path: Path, how: str, problem: str) -> None:
    record = write_run(tmp_path, RUN)
    path = tmp_path / RUN.folder / "predictions.csv"
    if how == "gone":
        path.unlink()
    else:
        damaged(how, pd.read_csv(path)).to_csv(path, index=False)
    text = write_report(tmp_path)
    assert problem in text
    assert "no interval: no predictions" in text
    rows = table(tmp_path)
    assert rows.loc["cnn-none", "auroc"] == record.metrics["test"]["auroc"]["value"]
    assert np.isnan(rows.loc["cnn-none", "auroc_low"])


@pytest.mark.parametrize(("one", "other"), [("NA", "null"), ("1", "01")])
def test_patients_are_distinguished_by_text(tmp_path: Path, one: str, other: str) -> None:
    table = predictions(RUN)
    patients = {name: str(place) for place, name in enumerate(sorted(set(table["patient"])), 10)}
    patients |= {"test0-H0": one, "test0-H1": other}
    write_run(tmp_path, RUN, table.replace({"patient": patients}))
    (run,) = read_results(tmp_path).configurations[0].runs
    assert {one, other} <= set(run.test.sample.subjects.tolist())


def test_a_table_of_all_predictions_gives_the_same_report(tmp_path: Path) -> None:
    """Published sweeps have one compressed table, without what follows from the records."""
    run_ids = [RUN, replace(RUN, model="vit")]
    found = []
    for run_id in run_ids:
        table = predictions(run_id)
        table["calibrated"] = apply_temperature(table["score"].to_numpy(), 2.0)
        write_run(tmp_path, run_id, table, calibration={"temperature": 2.0})
        found.append(table.drop(columns="calibrated").assign(run=run_id.folder))
    expected = write_report(tmp_path)
    for run_id in run_ids:
        (tmp_path / run_id.folder / "predictions.csv").unlink()
    pd.concat(found).to_csv(tmp_path / TABLE, index=False)
    assert write_report(tmp_path) == expected
    assert read_results(tmp_path).problems == ()
    (tmp_path / TABLE).write_bytes(b"not compressed")
    with pytest.raises(StoreError, match="no readable predictions"):
        write_report(tmp_path)


def test_an_added_metric_is_shown_with_its_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = configuration_rows

    def added(*arguments: Any) -> list[Row]:
        return [
            replace(row, metrics={**row.metrics, "novelty": (0.125, 0.0, 0.25)})
            for row in rows(*arguments)
        ]

    monkeypatch.setattr("leuk.report.page.configuration_rows", added)
    write_run(tmp_path, RUN)
    others = write_report(tmp_path).split("## Other metrics")[1]
    assert "novelty" in others
    assert "0.125 [0.00, 0.25]" in others
    assert table(tmp_path).loc["cnn-none", "novelty_high"] == 0.25


def test_missing_results_are_named_in_the_order_of_runs(tmp_path: Path) -> None:
    run_ids = [replace(RUN, seed=seed) for seed in (1, 2, 10)]
    write_sweep(tmp_path, run_ids)
    for run_id in run_ids:
        (tmp_path / run_id.folder / "predictions.csv").unlink()
    problems = read_results(tmp_path).problems
    assert all(run_id.folder in problem for run_id, problem in zip(run_ids, problems, strict=True))


def test_a_patient_in_two_folds_has_a_mean_without_interval(tmp_path: Path) -> None:
    for number in (0, 1):
        content = predictions(fold(KFOLD, number), images=20 + number)
        names = content["patient"].str.replace("test1", "test0")
        write_run(tmp_path, fold(KFOLD, number), content.assign(patient=names))
    text = write_report(tmp_path)
    assert "cnn-none (2 folds): no interval: subjects" in text
    assert np.isnan(table(tmp_path).loc["cnn-none (2 folds)", "auroc_low"])


def test_configurations_are_named_by_their_differences(tmp_path: Path) -> None:
    shared = replace(RUN, settings={"data": "cnmc", "data.resolution": 64})
    write_sweep(
        tmp_path,
        [shared, replace(shared, settings={"data": "cnmc", "lr": 1e-5, "data.resolution": 64})],
    )
    text = write_report(tmp_path)
    assert "folds: data_cnmc, resolution_64." in text
    assert {"cnn-none", "cnn-none-lr_1e-05"} <= set(table(tmp_path).index)


def test_names_omit_shared_settings() -> None:
    synthetic = varied(
        RUN, augmentation="dcgan", settings={"data": "cnmc", "gan.latent": 9, "gan_fit.epochs": 3}
    )
    run_ids = [
        replace(RUN, settings={"data": "cnmc"}),
        synthetic,
        replace(synthetic, settings={"data": "cnmc", "gan.latent": 9, "gan_fit.epochs": 5}),
        replace(RUN, split="random", leaky=True, settings={"data": "cnmc"}),
    ]
    names, shared = row_names(run_ids)
    assert list(names.values()) == [
        "cnn-none-folds",
        "cnn-dcgan-folds-gan_fit.epochs_3",
        "cnn-dcgan-folds-gan_fit.epochs_5",
        "cnn-none-random_LEAKY",
    ]
    assert shared == ("folds: data_cnmc", "folds, dcgan: gan.latent_9", "random_LEAKY: data_cnmc")
    assert row_names(run_ids[:1])[0] == {run_ids[0]: "cnn-none"}


def test_warnings_of_records_are_listed(tmp_path: Path) -> None:
    write_run(
        tmp_path, RUN, warnings=[RunWarning("degenerate", "gradcam: 2 of 16 maps are degenerate")]
    )
    assert "cnn-none-folds-s0: gradcam: 2 of 16 maps are degenerate" in write_report(tmp_path)


def test_apparent_gain_by_leaking_is_reported(tmp_path: Path) -> None:
    leaky = replace(RUN, split="folds", leaky=True, settings={"split.purge": False})
    for run_id, auroc in ((RUN, 0.89), (replace(RUN, seed=1), 0.91), (leaky, 0.95)):
        record = record_of(run_id, predictions(run_id))
        record.metrics["test"]["auroc"]["value"] = auroc
        record.write(tmp_path / run_id.folder)
    text = write_report(tmp_path)
    assert "cnn-none-folds_LEAKY-purge_False has a test AUROC of 0.950" in text
    assert "cnn-none-folds of 0.900: apparent gain +0.050" in text
    assert "LEAKY" not in NOTES


def test_without_honest_run_no_gain_is_reported_and_leaky_is_marked(tmp_path: Path) -> None:
    write_sweep(tmp_path, [replace(RUN, split="random", leaky=True)])
    text = write_report(tmp_path)
    assert "apparent gain" not in text
    assert "| cnn-none-random_LEAKY " in text
    assert "baseline: area (random_LEAKY)" in text


def test_costs_and_area_come_from_the_records(tmp_path: Path) -> None:
    write_sweep(tmp_path, [RUN, replace(RUN, model="vit")])
    report = build_report(tmp_path, read_results(tmp_path))
    costs, area = (report.sections[name] for name in ("costs", "area"))
    of_line = costs.table.set_index("configuration")
    assert of_line.loc["cnn-none", "parameters"] == 1_000_000
    assert of_line.loc["ensemble-none", "flops"] == 2 * of_line.loc["vit-none", "flops"]
    assert of_line.loc["ensemble-none", "latency_ms"] == 4.0
    assert "1,000,000" in costs.markdown
    row = area.table.set_index("run").loc[RUN.folder]
    assert (row["within_bins"], row["within_bins_low"], row["bin1_hem"]) == (0.7, 0.6, 40)
    assert (row["within_bins_patients"], row["within_bins_patients_low"]) == (0.66, 0.5)
    assert row["one_size"] == row["auroc"]
    assert "0.550" in area.markdown
    assert "in area bins (patients)" in area.markdown
    assert "0.660" in area.markdown


def test_an_area_record_from_before_weights_by_patient_is_read(tmp_path: Path) -> None:
    record = write_run(tmp_path, RUN)
    old = dict(record.area, within_bins=dict(record.area["within_bins"]))
    del old["within_bins"]["patients"]
    write_run(tmp_path, RUN, area=old)
    report = build_report(tmp_path, read_results(tmp_path))
    row = report.sections["area"].table.iloc[0]
    assert row["within_bins"] == 0.7
    assert row[["within_bins_patients", "area_within_bins_patients"]].isna().all()


def test_a_record_of_an_older_leuk_has_no_costs_and_no_area(tmp_path: Path) -> None:
    record = write_run(tmp_path, RUN, area={}, cost={})
    assert json.loads((tmp_path / record.run.folder / "record.json").read_text())["cost"] == {}
    report = build_report(tmp_path, read_results(tmp_path))
    costs, area = (report.sections[name] for name in ("costs", "area"))
    assert "The cost was not measured" in costs.markdown
    assert "No run of this sweep has area checks" in area.markdown


@pytest.mark.parametrize(("runs", "draws"), [(1, 1000), (60, 1000), (67, 800), (700, 200)])
def test_large_sweeps_draw_fewer_resamples(runs: int, draws: int) -> None:
    assert draws_for([Configuration(RUN, (), (None,) * runs)]) == draws  # type: ignore[arg-type]


def test_empty_sweep(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no records"):
        write_report(tmp_path)


def test_metrics_by_patient_and_by_image_are_shown(tmp_path: Path) -> None:
    """Records from before them get theirs from the predictions."""
    table = predictions(RUN)
    write_run(tmp_path, RUN, table)
    assert "auroc_patients" not in read_results(tmp_path).records[0].metrics["test"]
    text = write_report(tmp_path)
    assert "AUROC (patients)" in text
    assert "## Equal weight for every patient" in text
    test = table.query("stage == 'test'")
    images = test.groupby(["label", "patient"])["path"].transform("size")
    expected = roc_auc_score(test["label"], test["score"], sample_weight=1 / images)
    rows = pd.read_csv(tmp_path / "report/table.csv").set_index("kind")
    for kind in ("configuration", "run"):
        assert rows.loc[kind, "auroc_patients"] == pytest.approx(expected)
    configuration = rows.loc["configuration"]
    assert configuration["auroc_patients_low"] < expected < configuration["auroc_patients_high"]
    grid = pd.read_csv(tmp_path / "report/grid.csv")
    assert grid["none_patients"].tolist() == pytest.approx([expected])


def test_baselines_are_named_by_their_differences(tmp_path: Path) -> None:
    def write(
        settings: dict[str, object], target: str, strength: float, model: str = "cnn"
    ) -> None:
        run_id = replace(RUN, settings=dict(settings), model=model)
        table = predictions(run_id)
        # Other images have other scores.
        for name in ("area", "majority"):
            table[f"baseline_{name}"] **= strength
        write_run(tmp_path, run_id, table, settings={"data": {"_target_": f"leuk.data.{target}"}})

    write({}, "phantom.PhantomDataModule", 1.0)
    write({}, "phantom.PhantomDataModule", 1.0, "vit")
    write({"data": "cnmc"}, "datamodule.CNMCDataModule", 1.1)
    results = read_results(tmp_path)
    titles = [one.title for one in baselines(results.configurations)]
    assert titles == [
        f"baseline: {name} ({data})"
        for data in ("phantom", "cnmc")
        for name in ("majority", "area")
    ]
    write({"data": "cnmc", "data.framing": "cell"}, "datamodule.CNMCDataModule", 1.2)
    titles = [one.title for one in baselines(read_results(tmp_path).configurations)]
    assert [title for title in titles if "area" in title] == [
        "baseline: area (phantom)",
        "baseline: area (cnmc)",
        "baseline: area (cnmc, framing_cell)",
    ]
