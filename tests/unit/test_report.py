import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sweeps import CELL, KFOLD, fold, predictions, record_of, write_run, write_sweep

from leuk.errors import StoreError
from leuk.evaluate.metrics import all_metrics
from leuk.grid.record import Record, RunWarning
from leuk.report.baselines import baselines
from leuk.report.content import build_report
from leuk.report.naming import row_names
from leuk.report.results import Configuration, read_results
from leuk.report.rows import draws_for
from leuk.report.sections import Grid, interval_text, p_text
from leuk.report.sweep_report import write_report
from leuk.report.tables import NOTES


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all else and has tests of its own."""
    monkeypatch.setattr("leuk.report.content.figures_of", lambda *arguments: [])


def table(sweep: Path) -> pd.DataFrame:
    return pd.read_csv(sweep / "report/table.csv").set_index("configuration")


def test_folds_and_seeds_are_one_line_and_keep_their_own_rows(tmp_path: Path) -> None:
    cells = [fold(replace(KFOLD, seed=seed), n) for seed in (0, 1) for n in range(3)]
    write_sweep(tmp_path, cells)
    text = write_report(tmp_path)
    assert (tmp_path / "report/table.md").read_text() == text + "\n"
    rows = table(tmp_path)
    (line,) = rows.index[rows["kind"] == "configuration"]
    assert line == "cnn-none (3 folds, 2 seeds)"
    assert rows.loc[line, "runs"] == 6
    single = [Record.read(tmp_path / cell.folder).metrics["test"] for cell in cells]
    for name in ("auroc", "mcc", "balanced_accuracy@youden", "ece_calibrated"):
        values = [figures[name]["value"] for figures in single]
        assert rows.loc[line, name] == pytest.approx(np.mean(values)), name
        assert rows.loc[line, f"{name}_low"] < rows.loc[line, name] < rows.loc[line, f"{name}_high"]
    runs = rows[rows["kind"] == "run"]
    assert set(runs.index) == {cell.folder for cell in cells}
    assert runs.loc[fold(replace(KFOLD, seed=1), 2).folder, "fold"] == 2
    assert interval_text(*(rows.loc[line, f"auroc{end}"] for end in ("", "_low", "_high"))) in text


def test_every_baseline_has_one_row_with_an_interval(tmp_path: Path) -> None:
    write_sweep(
        tmp_path, [fold(replace(KFOLD, model=m), n) for m in ("cnn", "vit") for n in (0, 1)]
    )
    write_run(tmp_path, fold(replace(KFOLD, model="hybrid"), 0))
    write_report(tmp_path)
    rows = table(tmp_path)
    lines = rows[rows["kind"] == "baseline"]
    assert list(lines.index) == ["baseline: majority (2 folds)", "baseline: area (2 folds)"]
    assert lines.loc["baseline: majority (2 folds)", "auroc"] == 0.5
    tests = [predictions(fold(KFOLD, n)).query("stage == 'test'") for n in (0, 1)]
    expected = [
        all_metrics(t["baseline_area"].to_numpy(), t["label"].to_numpy(), {"default": 0.5})["auroc"]
        for t in tests
    ]
    area = lines.loc["baseline: area (2 folds)"]
    assert area["auroc"] == pytest.approx(np.mean(expected))
    assert area["auroc_low"] < area["auroc"] < area["auroc_high"]


def test_a_line_not_above_the_area_alone_is_remarked(tmp_path: Path) -> None:
    good = predictions(CELL, strength=3.0)
    write_run(tmp_path, CELL, good)
    poor = predictions(replace(CELL, model="vit"), strength=0.2)
    poor["baseline_area"] = good["baseline_area"]
    write_run(tmp_path, replace(CELL, model="vit"), poor)
    said = [
        line for line in write_report(tmp_path).splitlines() if "area of the cell alone" in line
    ]
    assert len(said) == 1
    assert said[0].endswith("vit-none")


@pytest.mark.parametrize(("healthy", "warned"), [(3, True), (8, False)])
def test_few_persons_are_warned_of(tmp_path: Path, healthy: int, warned: bool) -> None:
    write_sweep(tmp_path, [CELL], healthy=healthy)
    text = "only 3.0 effective healthy subjects (of 3)"
    assert (text in write_report(tmp_path)) is warned


def test_persons_of_folds_are_counted_together(tmp_path: Path) -> None:
    write_sweep(tmp_path, [fold(KFOLD, n) for n in range(3)], healthy=3)
    assert "healthy subjects" not in write_report(tmp_path)


def test_failed_unfinished_and_half_written_cells_are_said(tmp_path: Path) -> None:
    write_sweep(tmp_path, [fold(KFOLD, n) for n in range(3)])
    failed = Record(replace(CELL, model="vit"), "abc")
    failed.fail(RuntimeError("no luck"))
    unfinished = Record(replace(CELL, model="hybrid"), "abc")
    for record in (failed, unfinished):
        record.write(tmp_path / record.run.folder)
    (tmp_path / "vit-dcgan-folds-s0").mkdir()
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


def test_a_failure_without_a_message_is_said(tmp_path: Path) -> None:
    write_run(tmp_path, CELL)
    failed = Record(replace(CELL, model="vit"), "abc")
    failed.fail(AssertionError())
    before = Record(replace(CELL, model="hybrid"), "abc", status="failed")
    before.error = {"type": "AssertionError", "message": "", "traceback": ""}
    for record in (failed, before):
        record.write(tmp_path / record.run.folder)
    text = write_report(tmp_path)
    assert "- vit-none-folds-s0: failed: AssertionError" in text
    assert "- hybrid-none-folds-s0: failed: not finished" in text


def test_a_copied_folder_is_no_further_run(tmp_path: Path) -> None:
    write_run(tmp_path, CELL)
    shutil.copytree(tmp_path / CELL.folder, tmp_path / f"{CELL.folder}-copy")
    text = write_report(tmp_path)
    assert f"{CELL.folder}-copy: skipped, as its record belongs to {CELL.folder}; move" in text
    assert table(tmp_path).loc["cnn-none", "runs"] == 1


def test_a_fold_that_one_line_lacks_is_named(tmp_path: Path) -> None:
    write_sweep(tmp_path, [fold(KFOLD, n) for n in range(3)])
    write_sweep(tmp_path, [fold(replace(KFOLD, model="vit"), n) for n in (0, 2)])
    text = write_report(tmp_path)
    assert "vit-none: not run, though other lines have it: seed 0 fold 1" in text


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
    ("how", "said"),
    [
        ("cut", "275 lines of the test part, its record says 280"),
        ("column", "no column calibrated"),
        ("nan", "values are missing"),
        ("range", r"scores must lie in [0, 1]"),
        ("huge", "too large"),
        ("baseline", r"scores must lie in [0, 1]"),
        ("stage", "no line of the test part"),
        ("gone", "no readable predictions"),
    ],
)
def test_predictions_that_cannot_be_used_are_named(tmp_path: Path, how: str, said: str) -> None:
    record = write_run(tmp_path, CELL)
    path = tmp_path / CELL.folder / "predictions.csv"
    if how == "gone":
        path.unlink()
    else:
        damaged(how, pd.read_csv(path)).to_csv(path, index=False)
    text = write_report(tmp_path)
    assert said in text
    assert "no interval: no predictions" in text
    rows = table(tmp_path)
    assert rows.loc["cnn-none", "auroc"] == record.metrics["test"]["auroc"]["value"]
    assert np.isnan(rows.loc["cnn-none", "auroc_low"])


def test_a_person_may_be_called_as_what_means_nothing_elsewhere(tmp_path: Path) -> None:
    content = predictions(CELL)
    write_run(tmp_path, CELL, content.replace({"patient": {"test0-H0": "NA", "test0-H1": "null"}}))
    (run,) = read_results(tmp_path).groups[0].runs
    assert {"NA", "null"} <= set(run.test.sample.subjects.tolist())


def test_persons_are_told_apart_by_their_names_not_by_numbers(tmp_path: Path) -> None:
    table = predictions(CELL)
    persons = {name: str(place) for place, name in enumerate(sorted(set(table["patient"])), 10)}
    persons |= {"test0-H0": "1", "test0-H1": "01"}
    write_run(tmp_path, CELL, table.replace({"patient": persons}))
    (run,) = read_results(tmp_path).groups[0].runs
    assert {"1", "01"} <= set(run.test.sample.subjects.tolist())


@pytest.mark.parametrize("workers", [1, 2])
def test_what_runs_of_a_fold_have_in_common_is_in_memory_once(tmp_path: Path, workers: int) -> None:
    other = replace(CELL, augmentation="dcgan")
    write_sweep(tmp_path, [CELL, other, replace(CELL, seed=1), replace(CELL, model="vit")])
    moved = predictions(other)
    last = moved.index[-1]
    moved.loc[last, "path"] = "another.bmp"
    write_run(tmp_path, other, moved)
    results = read_results(tmp_path, workers)
    runs = {run.id: run for group in results.groups for run in group.runs}
    same = [run for cell, run in runs.items() if cell != other]
    assert len(same) == 3
    assert len({id(run.test.paths) for run in same}) <= workers
    assert len({id(run.test.sample.labels) for run in same}) <= workers
    assert "another.bmp" in runs[other].test.paths
    assert not any("another.bmp" in run.test.paths for run in same)
    assert all(len(set(run.test.sample.scores)) > 1 for run in runs.values())
    scores = {tuple(run.test.sample.scores) for run in runs.values()}
    assert len(scores) == 4


def test_what_is_missing_is_named_in_the_order_of_cells(tmp_path: Path) -> None:
    cells = [replace(CELL, seed=seed) for seed in (1, 2, 10)]
    write_sweep(tmp_path, cells)
    for cell in cells:
        (tmp_path / cell.folder / "predictions.csv").unlink()
    told = read_results(tmp_path).problems
    assert all(cell.folder in problem for cell, problem in zip(cells, told, strict=True))


def test_a_person_in_two_folds_has_a_mean_without_interval(tmp_path: Path) -> None:
    for number in (0, 1):
        content = predictions(fold(KFOLD, number), cells=20 + number)
        names = content["patient"].str.replace("test1", "test0")
        write_run(tmp_path, fold(KFOLD, number), content.assign(patient=names))
    text = write_report(tmp_path)
    assert "cnn-none (2 folds): no interval: subjects" in text
    assert np.isnan(table(tmp_path).loc["cnn-none (2 folds)", "auroc_low"])


def test_lines_are_named_by_what_differs(tmp_path: Path) -> None:
    shared = replace(CELL, variant="data_cnmc-resolution_64")
    write_sweep(tmp_path, [shared, replace(shared, variant="data_cnmc-lr_1e-05-resolution_64")])
    text = write_report(tmp_path)
    assert "folds: data_cnmc, resolution_64." in text
    assert {"cnn-none", "cnn-none-lr_1e-05"} <= set(table(tmp_path).index)


def test_names_leave_out_what_lines_share() -> None:
    made = replace(CELL, augmentation="dcgan", variant="data_cnmc-gan.latent_9-gan_fit.epochs_3")
    cells = [
        replace(CELL, variant="data_cnmc"),
        made,
        replace(made, variant="data_cnmc-gan.latent_9-gan_fit.epochs_5"),
        replace(CELL, split="random_LEAKY", variant="data_cnmc"),
    ]
    names, shared = row_names(cells)
    assert list(names.values()) == [
        "cnn-none-folds",
        "cnn-dcgan-folds-gan_fit.epochs_3",
        "cnn-dcgan-folds-gan_fit.epochs_5",
        "cnn-none-random_LEAKY",
    ]
    assert shared == ("folds: data_cnmc", "folds, dcgan: gan.latent_9", "random_LEAKY: data_cnmc")
    assert row_names(cells[:1])[0] == {cells[0]: "cnn-none"}


def test_a_name_that_was_cut_is_said(tmp_path: Path) -> None:
    write_sweep(tmp_path, [replace(CELL, variant="cut_0123456789abcdef")])
    assert "cnn-none: has too many settings for a name" in write_report(tmp_path)


def test_warnings_of_records_are_told(tmp_path: Path) -> None:
    write_run(
        tmp_path, CELL, warnings=[RunWarning("degenerate", "gradcam: 2 of 16 maps are degenerate")]
    )
    assert "cnn-none-folds-s0: gradcam: 2 of 16 maps are degenerate" in write_report(tmp_path)


def test_what_leaking_gains_stands_beside_the_honest_cell(tmp_path: Path) -> None:
    leaky = replace(CELL, split="folds_LEAKY", variant="purge_False")
    for cell, auroc in ((CELL, 0.89), (replace(CELL, seed=1), 0.91), (leaky, 0.95)):
        record = record_of(cell, predictions(cell))
        record.metrics["test"]["auroc"]["value"] = auroc
        record.write(tmp_path / cell.folder)
    text = write_report(tmp_path)
    assert "cnn-none-folds_LEAKY-purge_False has a test AUROC of 0.950" in text
    assert "cnn-none-folds of 0.900: leaking seems to gain +0.050" in text
    assert "LEAKY" not in NOTES


def test_no_honest_cell_no_gain_and_a_leaky_line_stays_marked(tmp_path: Path) -> None:
    write_sweep(tmp_path, [replace(CELL, split="random_LEAKY")])
    text = write_report(tmp_path)
    assert "seems to gain" not in text
    assert "| cnn-none-random_LEAKY " in text
    assert "baseline: area (random_LEAKY)" in text


def test_costs_and_area_come_from_the_records(tmp_path: Path) -> None:
    write_sweep(tmp_path, [CELL, replace(CELL, model="vit")])
    report = build_report(tmp_path, read_results(tmp_path))
    costs, area = (s for s in report.sections if s.name in ("costs", "area"))
    of_line = costs.table.set_index("configuration")
    assert of_line.loc["cnn-none", "parameters"] == 1_000_000
    assert of_line.loc["ensemble-none", "flops"] == 2 * of_line.loc["vit-none", "flops"]
    assert of_line.loc["ensemble-none", "latency_ms"] == 4.0
    assert "1,000,000" in costs.markdown
    row = area.table.set_index("run").loc[CELL.folder]
    assert (row["within_bins"], row["within_bins_low"], row["bin1_hem"]) == (0.7, 0.6, 40)
    assert (row["within_bins_patients"], row["within_bins_patients_low"]) == (0.66, 0.5)
    assert row["one_size"] == row["auroc"]
    assert "0.550" in area.markdown
    assert "in area bins (patients)" in area.markdown
    assert "0.660" in area.markdown


def test_an_area_record_from_before_weights_by_patient_is_read(tmp_path: Path) -> None:
    record = write_run(tmp_path, CELL)
    old = dict(record.area, within_bins=dict(record.area["within_bins"]))
    del old["within_bins"]["patients"]
    write_run(tmp_path, CELL, area=old)
    report = build_report(tmp_path, read_results(tmp_path))
    row = next(s for s in report.sections if s.name == "area").table.iloc[0]
    assert row["within_bins"] == 0.7
    assert row[["within_bins_patients", "area_within_bins_patients"]].isna().all()


def test_a_record_of_an_older_leuk_has_no_costs_and_no_area(tmp_path: Path) -> None:
    record = write_run(tmp_path, CELL, area={}, cost={})
    assert json.loads((tmp_path / record.run.folder / "record.json").read_text())["cost"] == {}
    report = build_report(tmp_path, read_results(tmp_path))
    costs, area = (s for s in report.sections if s.name in ("costs", "area"))
    assert "No record of the sweep holds a cost" in costs.markdown
    assert "No record of the sweep holds a look at the area" in area.markdown


@pytest.mark.parametrize(("runs", "draws"), [(1, 1000), (60, 1000), (67, 800), (700, 200)])
def test_large_sweeps_draw_fewer_resamples(runs: int, draws: int) -> None:
    assert draws_for([Configuration(CELL, (), (None,) * runs)]) == draws  # type: ignore[arg-type]


def test_grids_are_aligned() -> None:
    grid = Grid(("", "a"), (("long name", "1"), ("x|y", "0.125")))
    lines = grid.markdown.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[3] == "| x/y       | 0.125 |"


def test_numbers_as_they_are_read() -> None:
    assert interval_text(0.9123, 0.88, 0.94) == "0.912 [0.88, 0.94]"
    assert interval_text(0.9123, None, None) == "0.912"
    assert interval_text(None, None, None) == ""
    assert (p_text(0.0004), p_text(0.0123)) == ("<0.001", "0.012")


def test_empty_sweep(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no records"):
        write_report(tmp_path)


def test_metrics_by_patient_stand_beside_those_by_image(tmp_path: Path) -> None:
    """Records from before them get theirs from the predictions."""
    table = predictions(CELL)
    write_run(tmp_path, CELL, table)
    assert "auroc_patients" not in read_results(tmp_path).records[0].metrics["test"]
    text = write_report(tmp_path)
    assert "AUROC (patients)" in text
    assert "## Every patient weighs the same" in text
    test = table.query("stage == 'test'")
    images = test.groupby(["label", "patient"])["path"].transform("size")
    expected = roc_auc_score(test["label"], test["score"], sample_weight=1 / images)
    rows = pd.read_csv(tmp_path / "report/table.csv").set_index("kind")
    for kind in ("configuration", "run"):
        assert rows.loc[kind, "auroc_patients"] == pytest.approx(expected)
    group = rows.loc["configuration"]
    assert group["auroc_patients_low"] < expected < group["auroc_patients_high"]
    grid = pd.read_csv(tmp_path / "report/grid.csv")
    assert grid["none_patients"].tolist() == pytest.approx([expected])


def test_baselines_name_what_sets_them_apart(tmp_path: Path) -> None:
    def write(variant: str, target: str, strength: float, model: str = "cnn") -> None:
        cell = replace(CELL, variant=variant, model=model)
        table = predictions(cell)
        # Other images have other scores.
        for name in ("area", "majority"):
            table[f"baseline_{name}"] **= strength
        write_run(tmp_path, cell, table, settings={"data": {"_target_": f"leuk.data.{target}"}})

    write("", "phantom.PhantomDataModule", 1.0)
    write("", "phantom.PhantomDataModule", 1.0, "vit")
    write("data_cnmc", "datamodule.CNMCDataModule", 1.1)
    results = read_results(tmp_path)
    titles = [line.title for line in baselines(results.groups)]
    assert titles == [
        f"baseline: {name} ({data})"
        for data in ("phantom", "cnmc")
        for name in ("majority", "area")
    ]
    write("data_cnmc-framing_cell", "datamodule.CNMCDataModule", 1.2)
    titles = [line.title for line in baselines(read_results(tmp_path).groups)]
    assert [title for title in titles if "area" in title] == [
        "baseline: area (phantom)",
        "baseline: area (cnmc)",
        "baseline: area (cnmc, framing_cell)",
    ]
