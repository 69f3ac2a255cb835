"""Tables, ensembles, baselines and remarks of a report, from simulated sweeps."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sweeps import COST, KFOLD, RUN, fold, predictions, record_of, varied, write_run, write_sweep

from leuk.errors import StoreError
from leuk.metrics.calibration import apply_temperature, fit_temperature
from leuk.metrics.thresholds import choose_thresholds
from leuk.report.costs import costs_of
from leuk.report.derived import baselines, ensembles
from leuk.report.figures import confusion
from leuk.report.load import TABLE, Configuration, Results, read_results, row_names
from leuk.report.page import Report, build_report
from leuk.report.remarks import leaking_gains, remarks_on
from leuk.report.rows import Row, configuration_rows, draws_for, run_rows
from leuk.report.table import interval_text
from leuk.report.tables import metric_columns
from leuk.runs.record import Record, RunId, RunWarning, as_metrics
from leuk.store import write_text

VIT, HYBRID = (replace(RUN, model=model) for model in ("vit", "hybrid"))


class Built(NamedTuple):
    """A report, its main table as text, and as values by name."""

    report: Report
    text: str
    rows: pd.DataFrame


def built(sweep: Path) -> Built:
    report = build_report(sweep, read_results(sweep))
    section = report.sections["table"]
    return Built(report, section.markdown, section.table.set_index("configuration"))


# --- A sweep with folds and seeds, and with runs that cannot be used

RUNS = [fold(replace(KFOLD, seed=seed), number) for seed in (0, 1) for number in range(3)]


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Built:
    sweep = tmp_path_factory.mktemp("folds")
    write_sweep(sweep, [*RUNS, *(fold(replace(KFOLD, model="vit"), n) for n in (0, 2))])
    failed, silent, stopped, before = (
        Record(replace(KFOLD, model="hybrid", seed=seed), "abc") for seed in range(4)
    )
    failed.fail(RuntimeError("no luck"))
    silent.fail(AssertionError())
    before.status, before.error = "failed", {"type": "Error", "message": "", "traceback": ""}
    for record in (failed, silent, stopped, before):
        record.write(sweep / record.run.folder)
    write_text(sweep / "vit-dcgan-folds-s0/.lock", "")
    write_text(sweep / "cnn-wgan-folds-s0/record.json", "{")
    shutil.copytree(sweep / RUNS[0].folder, sweep / "copy")
    return built(sweep)


def test_folds_and_seeds_share_a_row_and_keep_their_own_rows(folds: Built) -> None:
    title = "cnn-none (3 folds, 2 seeds)"
    row = folds.rows.loc[title]
    assert row["runs"] == 6
    single = [record_of(run, predictions(run)).metrics["test"] for run in RUNS]
    for name in ("auroc", "mcc", "balanced_accuracy@youden", "ece_calibrated"):
        assert row[name] == pytest.approx(np.mean([own[name]["value"] for own in single])), name
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
    runs = folds.rows[folds.rows["kind"] == "run"]
    assert {run.folder for run in RUNS} < set(runs.index)
    assert runs.loc[RUNS[5].folder, ["seed", "fold"]].tolist() == [1, 2]
    assert interval_text(*(row[f"auroc{end}"] for end in ("", "_low", "_high"))) in folds.text


def test_a_baseline_has_one_row_of_all_folds_with_an_interval(folds: Built) -> None:
    found = folds.rows[folds.rows["kind"] == "baseline"]
    assert list(found.index) == ["baseline: majority (3 folds)", "baseline: area (3 folds)"]
    assert found["auroc"].iloc[0] == 0.5
    tests = [predictions(run).query("stage == 'test'") for run in RUNS[:3]]
    expected = np.mean([roc_auc_score(one["label"], one["baseline_area"]) for one in tests])
    area = found.iloc[1]
    assert area["auroc"] == pytest.approx(expected)
    assert area["auroc_low"] < area["auroc"] < area["auroc_high"]
    # Patients of all folds are counted together.
    assert "healthy subjects" not in folds.text


@pytest.mark.parametrize(
    "text",
    [
        "hybrid-none-subject_kfold-s0-n_folds_3: failed: no luck",
        "hybrid-none-subject_kfold-s1-n_folds_3: failed: AssertionError",
        "hybrid-none-subject_kfold-s2-n_folds_3: running: not finished",
        "hybrid-none-subject_kfold-s3-n_folds_3: failed: not finished",
        "vit-dcgan-folds-s0: no record.json",
        "cnn-wgan-folds-s0/record.json: no readable record",
        f"copy: skipped, as its record belongs to {RUNS[0].folder}; move",
        "vit-none: lacks runs that other configurations have: seed 0 fold 1, seed 1 fold 0",
    ],
)
def test_runs_that_cannot_be_used_are_named(folds: Built, text: str) -> None:
    assert text in folds.text


# --- A sweep of several models and splits without folds


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Built:
    sweep = tmp_path_factory.mktemp("models")
    good = predictions(RUN, strength=3.0)
    poor = predictions(VIT, strength=0.2).assign(baseline_area=good["baseline_area"])
    warnings = [RunWarning("degenerate", "gradcam: 2 of 16 maps are degenerate")]
    write_run(sweep, RUN, good, warnings=warnings)
    write_run(sweep, VIT, poor, cost=COST | {"latency_ms": 5.0, "flops": 7_000_000})
    for seed, (latency, auroc) in enumerate(((2.0, 0.89), (3.0, 0.91), (100.0, 0.9))):
        run = replace(HYBRID, seed=seed)
        record = record_of(run, predictions(run), cost=COST | {"latency_ms": latency})
        record.metrics["test"]["auroc"]["value"] = auroc
        record.write(sweep / run.folder)
    leaky = replace(HYBRID, leaky=True, settings={"split.purge": False})
    record = write_run(sweep, leaky, cost={})
    del record.area["within_bins"]["patients"]  # as in older records
    record.metrics["test"]["auroc"]["value"] = 0.95
    record.write(sweep / leaky.folder)
    return built(sweep)


def test_remarks_name_what_limits_the_results(models: Built) -> None:
    assert "only 4.0 effective healthy subjects (of 4)" in models.text
    assert "cnn-none-folds-s0: gradcam: 2 of 16 maps are degenerate" in models.text
    assert "hybrid-none-folds_LEAKY-purge_False has a test AUROC of 0.950" in models.text
    assert "hybrid-none-folds of 0.900: apparent gain +0.050" in models.text
    lines = models.text.splitlines()
    (area,) = (line for line in lines if "area alone" in line and "folds):" in line)
    assert "vit-none-folds" in area
    assert "cnn-none-folds" not in area
    assert "| hybrid-none-folds_LEAKY " in models.text
    assert "baseline: area (folds_LEAKY)" in models.text


def test_costs_are_medians_and_an_ensemble_s_the_sum_of_its_members(models: Built) -> None:
    section = models.report.sections["costs"]
    costs = section.table.set_index("configuration")
    assert models.rows.loc["ensemble-none-folds", "runs"] == 1
    assert costs.loc["hybrid-none-folds", "latency_ms"] == 3.0
    assert costs.loc["ensemble-none-folds", ["latency_ms", "flops"]].tolist() == [7, 57_000_000]
    assert np.isnan(costs.loc["ensemble-none-folds", "memory_bytes"])
    assert "hybrid-none-folds_LEAKY" not in costs.index
    assert "1,000,000" in section.markdown
    assert " 57.0 " in section.markdown


def test_results_by_cell_area_come_from_the_records(models: Built) -> None:
    section = models.report.sections["area"]
    rows = section.table.set_index("run")
    row = rows.loc[RUN.folder]
    assert (row["within_bins"], row["within_bins_low"], row["bin1_hem"]) == (0.7, 0.6, 40)
    assert (row["within_bins_patients"], row["within_bins_patients_low"]) == (0.66, 0.5)
    assert row["one_size"] == row["auroc"]
    assert " 0.550 " in section.markdown
    assert " 0.660 " in section.markdown
    old = rows[rows["configuration"].str.contains("LEAKY")].iloc[0]
    assert old["within_bins"] == 0.7
    assert old[["within_bins_patients", "area_within_bins_patients"]].isna().all()


def test_metrics_by_patient_and_by_image_are_shown(models: Built) -> None:
    """Records from before them get theirs from the predictions."""
    assert "## Equal weight for every patient" in models.text
    test = predictions(VIT, strength=0.2).query("stage == 'test'")
    images = test.groupby(["label", "patient"])["path"].transform("size")
    expected = roc_auc_score(test["label"], test["score"], sample_weight=1 / images)
    for name in ("vit-none-folds", VIT.folder):
        assert models.rows.loc[name, "auroc_patients"] == pytest.approx(expected)
    row = models.rows.loc["vit-none-folds"]
    assert row["auroc_patients_low"] < expected < row["auroc_patients_high"]
    grid = models.report.sections["grid"].table.set_index("model")
    assert grid.loc["vit-folds", "none_patients"] == pytest.approx(expected)


def test_a_record_of_an_older_leuk_has_no_costs_and_no_area(tmp_path: Path) -> None:
    write_run(tmp_path, RUN, area={}, cost={})
    sections = build_report(tmp_path, read_results(tmp_path)).sections
    assert "The cost was not measured" in sections["costs"].markdown
    assert "No run of this sweep has area checks" in sections["area"].markdown


# --- Predictions


@pytest.fixture
def results(tmp_path: Path) -> Results:
    # The order of the rows in the file does not matter.
    write_run(tmp_path / "s", RUN, predictions(RUN)[::-1])
    return read_results(tmp_path / "s")


def table_of(stage: str) -> pd.DataFrame:
    table = predictions(RUN)
    return table[table["stage"] == stage].sort_values("path", kind="stable")


def test_predictions_are_read_column_by_column(results: Results) -> None:
    (configuration,) = results.configurations
    (run,) = configuration.runs
    pooled, test = configuration.pooled.calibrated, run.test.sample.calibrated
    assert pooled is not None
    assert pooled.tolist() == (None if test is None else test.tolist())
    for stage, found in (("val", run.val), ("test", run.test)):
        expected = table_of(stage)
        for column, values in (
            ("score", found.sample.scores),
            ("calibrated", found.sample.calibrated),
            ("label", found.sample.labels),
            ("baseline_area", found.baselines["area"]),
        ):
            np.testing.assert_allclose(values, expected[column])
        assert found.sample.subjects.tolist() == expected["patient"].tolist()
        assert found.paths.tolist() == expected["path"].tolist()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda t: t.iloc[:-5], "275 rows of stage test, but its record counts 280"),
        (lambda t: t.drop(columns="calibrated"), "no column calibrated"),
        (lambda t: t.assign(score=t["score"].where(t.index != 3)), "values are missing"),
        (lambda t: t.assign(score=t["score"] * 2), "scores must be in [0, 1]"),
        (lambda t: t.assign(label=10**30), "too large"),
        (lambda t: t.assign(baseline_area=t["baseline_area"] * 3), "scores must be in [0, 1]"),
        (lambda t: t[t["stage"] == "val"], "no row of stage test"),
        (None, "no readable predictions"),
    ],
)
def test_predictions_that_cannot_be_used_are_named(
    tmp_path: Path, damage: Callable[[pd.DataFrame], pd.DataFrame] | None, problem: str
) -> None:
    record = write_run(tmp_path, RUN)
    path = tmp_path / RUN.folder / "predictions.csv"
    table = pd.read_csv(path)
    path.unlink()
    if damage:
        damage(table).to_csv(path, index=False)
    found = read_results(tmp_path)
    assert problem in found.problems[0]
    (row,) = configuration_rows(found.configurations, 20)
    assert row.note == "no interval: no predictions"
    assert row.metrics["auroc"] == (record.metrics["test"]["auroc"]["value"], None, None)


def test_predictions_outside_the_folder_of_the_run_are_not_read(tmp_path: Path) -> None:
    write_run(tmp_path, RUN, predictions="../outside.csv")
    predictions(RUN).to_csv(tmp_path / "outside.csv", index=False)
    assert "leads out of" in read_results(tmp_path).problems[0]


@pytest.mark.parametrize(("one", "other"), [("NA", "null"), ("1", "01")])
def test_patients_are_distinguished_by_text(tmp_path: Path, one: str, other: str) -> None:
    table = predictions(RUN)
    patients = {name: str(place) for place, name in enumerate(sorted(set(table["patient"])), 10)}
    patients |= {"test0-H0": one, "test0-H1": other}
    write_run(tmp_path, RUN, table.replace({"patient": patients}))
    (run,) = read_results(tmp_path).configurations[0].runs
    assert {one, other} <= set(run.test.sample.subjects.tolist())


def test_a_table_of_all_predictions_gives_the_same_results(tmp_path: Path) -> None:
    """Published sweeps have one compressed table, without what follows from the records."""
    found = []
    for run in (RUN, VIT):
        table = predictions(run)
        table["calibrated"] = apply_temperature(table["score"].to_numpy(), 2.0)
        write_run(tmp_path, run, table, calibration={"temperature": 2.0})
        found.append(table.drop(columns="calibrated").assign(run=run.folder))
    expected = [one.runs[0].test.sample for one in read_results(tmp_path).configurations]
    for run in (RUN, VIT):
        (tmp_path / run.folder / "predictions.csv").unlink()
    pd.concat(found).to_csv(tmp_path / TABLE, index=False)
    results = read_results(tmp_path)
    assert results.problems == ()
    for one, sample in zip(results.configurations, expected, strict=True):
        other = one.runs[0].test.sample
        np.testing.assert_array_equal(other.scores, sample.scores)
        assert sample.calibrated is not None
        assert other.calibrated is not None
        np.testing.assert_allclose(other.calibrated, sample.calibrated, rtol=1e-12)
    (tmp_path / TABLE).write_bytes(b"not compressed")
    with pytest.raises(StoreError, match="no readable predictions"):
        read_results(tmp_path)


# --- Rows, names, baselines, ensembles and remarks by hand


def test_metrics_use_test_images_and_the_thresholds_of_the_run(results: Results) -> None:
    configuration = results.configurations[0]
    (row,) = configuration_rows([configuration], 200)
    test = table_of("test")
    sick = test["label"] == 1
    for suffix, threshold in (("", 0.5), ("@youden", configuration.runs[0].thresholds["youden"])):
        called = test["score"] >= threshold
        assert row.metrics[f"sensitivity{suffix}"][0] == pytest.approx(called[sick].mean())
        assert row.metrics[f"specificity{suffix}"][0] == pytest.approx((~called[~sick]).mean())
    metrics = {"test": as_metrics({"mcc": 0.5}, {"mcc": (0.4, 0.7)})}
    record = replace(results.records[0], metrics=metrics)
    without_predictions = replace(configuration, records=(record,), runs=())
    (run,) = run_rows(replace(results, configurations=(without_predictions,)))
    assert run.metrics == {"mcc": (0.5, 0.4, 0.7)}


def test_a_patient_in_two_folds_has_a_mean_without_interval(tmp_path: Path) -> None:
    for number in (0, 1):
        content = predictions(fold(KFOLD, number), images=20 + number)
        names = content["patient"].str.replace("test1", "test0")
        write_run(tmp_path, fold(KFOLD, number), content.assign(patient=names))
    configurations = read_results(tmp_path).configurations
    (row,) = configuration_rows(configurations, 20)
    assert row.note.startswith("no interval: subjects")
    youden = row.metrics["sensitivity@youden"]
    expected = []
    for run in configurations[0].runs:
        test = run.test.sample
        expected.append((test.scores[test.labels == 1] >= run.thresholds["youden"]).mean())
    assert youden == (pytest.approx(np.mean(expected)), None, None)


@pytest.mark.parametrize(("runs", "draws"), [(1, 1000), (60, 1000), (67, 800), (700, 200)])
def test_large_sweeps_draw_fewer_resamples(runs: int, draws: int) -> None:
    assert draws_for([Configuration(RUN, (), (None,) * runs)]) == draws  # type: ignore[arg-type]


def test_an_added_metric_is_shown_with_its_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = configuration_rows

    def added(*arguments: Any) -> list[Row]:
        new = {"novelty": (0.125, 0.0, 0.25)}
        return [replace(row, metrics={**row.metrics, **new}) for row in rows(*arguments)]

    monkeypatch.setattr("leuk.report.page.configuration_rows", added)
    write_run(tmp_path, RUN)
    found = built(tmp_path)
    assert "0.125 [0.00, 0.25]" in found.text.split("## Other metrics")[1]
    assert found.rows.loc["cnn-none", "novelty_high"] == 0.25


def test_columns_match_their_headings() -> None:
    tables = metric_columns()
    main = {"AUROC": "auroc", "bal. acc.": "balanced_accuracy", "F1 weighted": "f1_weighted"}
    main |= {"AUPRC": "auprc", "sens.": "sensitivity", "spec.": "specificity", "MCC": "mcc"}
    assert {heading: tables["main"][heading] for heading in main} == main
    assert all("_patients" in metric for metric in tables["patients"].values())
    names = {"AUROC": "auroc", "bal": "balanced_accuracy"}
    names |= {"sens": "sensitivity", "spec": "specificity"}
    for heading, metric in (tables["chosen"] | tables["patients"]).items():
        assert metric.startswith(names[heading.partition(".")[0]])
        for name, end in (("Youden", "@youden"), ("0.95", "@sensitivity95")):
            assert metric.endswith(end) is (name in heading)
    for heading, metric in tables["calibration"].items():
        assert metric.startswith(heading.split()[0].lower())
        assert metric.endswith("_calibrated") is ("calibrated" in heading)


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


def test_baselines_are_named_by_their_differences(tmp_path: Path) -> None:
    def titles(
        settings: dict[str, object], target: str, strength: float, model: str = "cnn"
    ) -> list[str]:
        run_id = replace(RUN, settings=settings, model=model)
        table = predictions(run_id)
        # Other images have other scores.
        for name in ("area", "majority"):
            table[f"baseline_{name}"] **= strength
        write_run(tmp_path, run_id, table, settings={"data": {"_target_": f"leuk.data.{target}"}})
        return [one.title for one in baselines(read_results(tmp_path).configurations)]

    phantom, cnmc = "phantom.PhantomDataModule", "datamodule.CNMCDataModule"
    alone = ["baseline: majority", "baseline: area"]
    assert titles({}, phantom, 1.0) == titles({}, phantom, 1.0, "vit") == alone
    assert titles({"data": "cnmc"}, cnmc, 1.1) == [
        f"{name} ({data})" for data in ("phantom", "cnmc") for name in alone
    ]
    several = titles({"data": "cnmc", "data.framing": "cell"}, cnmc, 1.2)
    assert [title for title in several if "area" in title] == [
        "baseline: area (phantom)",
        "baseline: area (cnmc)",
        "baseline: area (cnmc, framing_cell)",
    ]


def test_a_baseline_uses_its_own_scores_and_thresholds(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(
        "leuk.report.derived.choose_thresholds", lambda scores, *_: given.append(scores) or {}
    )
    baseline = baselines(results.configurations)[1]
    assert baseline.title == "baseline: area"
    (run,) = baseline.runs
    np.testing.assert_allclose(run.test.sample.scores, table_of("test")["baseline_area"])
    np.testing.assert_allclose(run.val.sample.scores, table_of("val")["baseline_area"])
    np.testing.assert_allclose(given[1], table_of("val")["baseline_area"])


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
        mean = (one["score"] + two["score"]) / 2
        np.testing.assert_allclose(stage.sample.scores, mean, rtol=1e-9)
        assert stage.sample.labels.tolist() == one["label"].tolist()
    val = run.val.sample
    assert run.thresholds == choose_thresholds(val.scores, val.labels, val.subjects)
    odds = np.log(val.scores / (1 - val.scores)) / fit_temperature(val.scores, val.labels)
    np.testing.assert_allclose(val.calibrated, 1 / (1 + np.exp(-odds)), rtol=1e-9)


@pytest.mark.parametrize("stage", ["val", "test"])
def test_no_ensemble_of_models_with_different_images(tmp_path: Path, stage: str) -> None:
    write_run(tmp_path, RUN)
    other = predictions(VIT)
    renamed = other["path"].where(other["stage"] != stage, "other/" + other["path"])
    write_run(tmp_path, VIT, other.assign(path=renamed))
    assert ensembles(read_results(tmp_path).configurations) == []


def test_a_confusion_matrix_by_hand(results: Results) -> None:
    configuration = results.configurations[0]
    run = replace(configuration.runs[0], thresholds={"default": 0.5, "youden": 0.8})
    test = table_of("test")
    for cut, threshold in (("default", 0.5), ("youden", 0.8)):
        called = test["score"] >= threshold
        expected = [
            [int(((test["label"] == label) & (called == says)).sum()) for says in (False, True)]
            for label in (0, 1)
        ]
        assert confusion(replace(configuration, runs=(run,)), cut).tolist() == expected


def test_apparent_gain_by_hand() -> None:
    """A leaky run is compared with the honest one that differs in the fewest settings."""

    def scored(run_id: RunId, auroc: float) -> Record:
        metrics = {"test": as_metrics({"auroc": auroc})}
        return Record(run_id, "abc", status="complete", metrics=metrics)

    leaky = replace(RUN, split="random", leaky=True, settings={"fit.epochs": 3})
    records = [
        scored(leaky, 0.95),
        scored(replace(RUN, settings={"fit.epochs": 3}), 0.80),
        scored(replace(RUN, settings={"lr": 1, "width": 2}), 0.60),
    ]
    (text,) = leaking_gains(records)
    assert "0.950" in text
    assert text.endswith("of 0.800: apparent gain +0.150")
    assert leaking_gains(records[:1]) == []


def test_an_interval_that_includes_the_auroc_of_area_is_remarked(results: Results) -> None:
    test = table_of("test")
    area = roc_auc_score(test["label"], test["baseline_area"])

    def kinds(*auroc: float | None) -> list[str]:
        row = Row("x", "configuration", RUN, {"auroc": auroc})  # type: ignore[dict-item]
        return [one.kind for one in remarks_on(results, results.configurations, [row])]

    assert "area" in kinds(area + 0.05, area - 0.01, 1.0)
    assert "area" in kinds(area - 0.01, None, None)
    assert "area" not in kinds(area + 0.05, area + 0.01, 1.0)
    assert "few" in kinds(0.9, 0.8, 1.0)  # four healthy patients are fewer than six


def test_latency_has_an_interval_over_runs_of_one_device() -> None:
    """Of 40, 50 and 60 ms: exp(mean of logs), t(2) = 4.303 standard errors of 0.1172 either way."""
    records = [
        Record(replace(RUN, seed=seed), "", cost=COST | {"latency_ms": ms})
        for seed, ms in enumerate((40.0, 50.0, 60.0))
    ]
    cost = costs_of([Configuration(RUN, tuple(records), ())])[RUN]
    assert cost["latency_ms"] == 50.0
    assert cost["latency_ms_low"] == pytest.approx(29.78, abs=0.05)
    assert cost["latency_ms_high"] == pytest.approx(81.66, abs=0.1)
    records[0].cost["device"] = "another"
    for own in (records, records[1:2]):
        cost = costs_of([Configuration(RUN, tuple(own), ())])[RUN]
        assert (cost["latency_ms_low"], cost["latency_ms_high"]) == (None, None)
