import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_curve
from sweeps import RUN, predictions, varied, write_run, write_sweep

from leuk.metrics.bootstrap import Sample
from leuk.report.comparisons import compare
from leuk.report.curves import precision_of, reliability_figure, roc_figure, roc_of
from leuk.report.decisions import confusion, confusion_figure, per_subject_figure
from leuk.report.drawing import by_model, save_figure
from leuk.report.figures import figures_of, writing
from leuk.report.forest import augmentation_figure, differences_figure
from leuk.report.heatmap import LEVELS, heat_map, heat_map_figure
from leuk.report.results import Configuration, Run, read_results
from leuk.report.rows import configuration_rows
from leuk.report.sweep_report import write_report

NAMES = ("differences", "roc", "precision_recall", "reliability", "confusion", "per_subject")


@pytest.fixture
def configurations(tmp_path: Path) -> list[Configuration]:
    run_ids = [RUN, replace(RUN, seed=1), varied(RUN, augmentation="dcgan")]
    write_sweep(tmp_path, [*run_ids, replace(RUN, model="vit")])
    return list(read_results(tmp_path).configurations)


def test_every_figure_is_written_as_picture_and_for_print(
    configurations: list[Configuration], tmp_path: Path
) -> None:
    folder = tmp_path / "figures"
    heat = heat_map(configurations, configuration_rows(configurations, 20))
    with writing(
        folder, figures_of(configurations, compare(configurations), {}, heat), 1
    ) as written:
        assert [figure.name for figure in written()] == ["grid", "augmentation", *NAMES]
    names = {path.name for path in folder.iterdir()}
    assert names == {f"{n}.{s}" for n in (*NAMES, "grid", "augmentation") for s in ("png", "pdf")}
    for path in folder.glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.std() > 5, path.name
    for path in folder.glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF")


def test_no_figures_without_runs() -> None:
    assert figures_of([Configuration(RUN, (), ())], [], {}) == []


def test_figures_have_alternative_texts_by_panel(configurations: list[Configuration]) -> None:
    reached = {
        configuration.title: {"auroc": 0.9, "ece_calibrated": 0.1}
        for configuration in configurations
    }
    drawn = {one.name: one for one in figures_of(configurations, compare(configurations), reached)}
    assert drawn["roc"].alt == (
        "ROC curves of cnn: AUROC none 0.900, dcgan 0.900.",
        "ROC curves of vit: AUROC none 0.900.",
    )
    assert all(one.alt and all(one.alt) and one.caption for one in drawn.values())


def test_the_number_of_processes_does_not_change_the_files(tmp_path: Path) -> None:
    run_ids = [RUN, varied(RUN, augmentation="dcgan"), replace(RUN, model="vit")]
    write_sweep(tmp_path, [*run_ids, *(replace(run_id, seed=1) for run_id in run_ids)])
    written = []
    for workers in (1, 3):
        write_report(tmp_path, workers)
        files = sorted(path for path in (tmp_path / "report").rglob("*") if path.is_file())
        written.append({path: path.read_bytes() for path in files})
        shutil.rmtree(tmp_path / "report")
    assert {path.suffix for path in written[0]} == {".html", ".csv", ".md", ".png", ".pdf"}
    one, other = written
    assert list(one) == list(other)
    assert [path.name for path in one if one[path] != other[path]] == []


def test_a_figure_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    class Broken(Figure):
        def savefig(self, *arguments: object, **options: object) -> None:
            raise RuntimeError("the disk is full")

    (tmp_path / "roc.png").write_text("old")
    with pytest.raises(RuntimeError, match="full"):
        save_figure(Broken(), tmp_path, "roc")
    assert [path.name for path in tmp_path.iterdir()] == ["roc.png"]
    assert (tmp_path / "roc.png").read_text() == "old"


def test_augmentations_of_a_model_share_a_panel(configurations: list[Configuration]) -> None:
    assert list(by_model(configurations)) == ["cnn", "vit"]
    cnn, vit = (ax for ax in roc_figure(configurations).axes if ax.get_title())
    assert [line.get_label() for line in cnn.lines[:3]] == ["area alone", "none", "dcgan"]
    assert len(vit.lines) == 3
    styles = {(line.get_color(), line.get_linestyle()) for line in cnn.lines[1:3]}
    assert len(styles) == 2


def test_configurations_of_an_augmentation_are_labeled_by_settings(tmp_path: Path) -> None:
    synthetic = varied(RUN, augmentation="dcgan")
    run_ids = [replace(synthetic, settings={"gan_fit.epochs": number}) for number in (3, 5)]
    write_sweep(tmp_path, run_ids)
    configurations = list(read_results(tmp_path).configurations)
    assert list(by_model(configurations)) == ["cnn"]
    (ax,) = roc_figure(configurations).axes
    assert [line.get_label() for line in ax.lines[1:3]] == [
        configuration.title for configuration in configurations
    ]


@pytest.mark.parametrize("draw", [roc_figure, reliability_figure])
def test_axis_labels_do_not_overlap_tick_labels(
    configurations: list[Configuration], draw: Callable[[Sequence[Configuration]], Figure]
) -> None:
    figure = draw(configurations)
    figure.draw_without_rendering()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            words = axis.label.get_window_extent()
            assert figure.bbox.containsx(words.x0)
            assert figure.bbox.containsy(words.y0)
            assert not any(words.overlaps(n.get_window_extent()) for n in axis.get_ticklabels())


@pytest.mark.parametrize(("power", "above"), [(3.0, False), (0.3, True)])
def test_the_calibration_legend_avoids_the_lines(
    configurations: list[Configuration], power: float, above: bool
) -> None:
    def changed(run: Run) -> Run:
        sample = run.test.sample
        scores = sample.scores**power
        both = replace(sample, scores=scores, calibrated=scores)
        return replace(run, test=replace(run.test, sample=both))

    figure = reliability_figure(
        [replace(configurations[0], runs=tuple(map(changed, configurations[0].runs)))]
    )
    (ax,) = figure.axes
    figure.draw_without_rendering()
    legend = ax.get_legend()
    assert legend is not None
    box = legend.get_window_extent().transformed(ax.transData.inverted())
    assert bool(box.y0 > box.x0) == above


def test_counts_are_summed_over_runs_at_their_own_thresholds(
    configurations: list[Configuration],
) -> None:
    configuration = configurations[0]
    assert len(configuration.runs) == 2
    for cut in ("default", "youden"):
        counts = np.zeros((2, 2))
        for run in configuration.runs:
            table = predictions(run.id).query("stage == 'test'")
            called = table["score"] >= run.thresholds[cut]
            for label in (0, 1):
                own = called[table["label"] == label]
                counts[label] += [(~own).sum(), own.sum()]
        np.testing.assert_array_equal(confusion(configuration, cut), counts)
    figure = confusion_figure([configuration])
    assert names_of(figure) == ["cnn-none (160 + 400)"]
    (ax,) = figure.axes
    texts = [text.get_text() for text in ax.texts]
    for place, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        found = confusion(configuration, "default")
        assert texts[place] == f"{found[row, column] / found[row].sum():.2f}"


def test_each_patient_has_a_dot(configurations: list[Configuration]) -> None:
    figure = per_subject_figure(configurations)
    (ax,) = figure.axes
    healthy, _, leukemic, _ = ax.collections
    for points, patients, shift in ((healthy, 4, -0.18), (leukemic, 10, 0.18)):
        rows = np.asarray(points.get_offsets())[:, 1]
        np.testing.assert_allclose(
            rows, np.repeat(np.arange(len(configurations)) + shift, patients)
        )
    assert names_of(figure) == [configuration.title for configuration in configurations]


def test_each_difference_has_a_row(configurations: list[Configuration]) -> None:
    comparisons = [c for c in compare(configurations) if c.family != "augmentation"]
    figure = differences_figure(comparisons)
    (ax,) = figure.axes
    names = names_of(figure)
    assert {one.title for one in comparisons} <= set(names)
    assert len(names) == len(comparisons) + len({one.family for one in comparisons})
    assert len(ax.collections[-1].get_offsets()) == len(comparisons)  # type: ignore[arg-type]
    (augmented,) = (c for c in compare(configurations) if c.family == "augmentation")
    assert augmented.title not in names_of(differences_figure([*comparisons, augmented]))


def test_a_forest_of_augmentations_and_controls(tmp_path: Path) -> None:
    names = ("none", "oversample", "class_weights", "dcgan")
    write_sweep(tmp_path, [varied(RUN, augmentation=name) for name in names])
    comparisons = compare(read_results(tmp_path).configurations)
    figure = augmentation_figure(comparisons)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["minus no augmentation", "minus oversampling", "minus class weights"]
    dots = [len(np.asarray(ax.collections[-1].get_offsets())) for ax in figure.axes]
    assert dots == [3, 1, 1]
    found = {c.other.run.augmentation: c.result for c in comparisons if c.one.title == "cnn-dcgan"}
    (dot,) = np.asarray(figure.axes[1].collections[-1].get_offsets())
    assert found["oversample"] is not None
    assert dot[0] == found["oversample"].difference


def test_the_grid_has_a_shade_for_each_figure(tmp_path: Path) -> None:
    for strength, name in ((0.2, "none"), (1.0, "wgan"), (3.0, "dcgan")):
        run_id = varied(RUN, augmentation=name)
        write_run(tmp_path, run_id, predictions(run_id, strength=strength))
    write_run(tmp_path, varied(RUN, model="vit", augmentation="cgan"))
    configurations = read_results(tmp_path).configurations
    heat = heat_map(configurations, configuration_rows(configurations, 20))
    assert heat is not None
    assert (heat.rows, heat.columns) == (("cnn", "vit"), ("none", "dcgan", "wgan", "cgan"))
    levels = [heat.level(0, column) for column in range(4)]
    assert (levels[0], levels[1], levels[3]) == (0, LEVELS - 1, None)
    assert heat.section.table["dcgan"].tolist()[0] == heat.values[0][1]
    texts = [text.get_text() for text in heat_map_figure(heat).axes[0].texts]
    assert texts[:4] == [*(f"{value:.3f}" for value in heat.values[0][:3]), "-"]
    assert (
        heat_map([Configuration(RUN, (), ())], configuration_rows([Configuration(RUN, (), ())], 20))
        is None
    )


def test_curves_are_those_of_scikit_learn() -> None:
    grid, generator = np.linspace(0, 1, 201), np.random.default_rng(0)
    for decimals in (1, 3, 9):
        scores = generator.random(200).round(decimals)
        sample = Sample(scores, np.arange(200) % 3 % 2, np.arange(200) // 9)
        false, true, _ = roc_curve(sample.labels, scores)
        np.testing.assert_allclose(roc_of(sample)[1:], np.interp(grid, false, true)[1:])
        precision, recall, _ = precision_recall_curve(sample.labels, scores)
        expected = np.interp(grid, recall[::-1], precision[::-1])
        np.testing.assert_allclose(precision_of(sample), expected)


def test_many_groups_have_a_row_each(tmp_path: Path) -> None:
    table = predictions(RUN, images=5)
    for number in range(14):
        run_id = replace(RUN, settings={"lr": number})
        write_run(tmp_path, run_id, table)
    configurations = read_results(tmp_path).configurations
    names = [name.partition(" ")[0] for name in names_of(confusion_figure(configurations))]
    assert names == [configuration.title for configuration in configurations]


def names_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_row_names_and_axis_labels_do_not_overlap(
    configurations: list[Configuration],
) -> None:
    figure = per_subject_figure(configurations)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    for row, name in enumerate(figure.texts):
        box = name.get_window_extent()
        assert figure.bbox.containsx(box.x0)
        assert box.x1 < ax.bbox.x0
        assert (box.y0 + box.y1) / 2 == pytest.approx(ax.transData.transform((0, row))[1], abs=2)
    words = ax.xaxis.label.get_window_extent()
    assert figure.bbox.containsy(words.y0)
    assert not any(words.overlaps(n.get_window_extent()) for n in ax.get_xticklabels())
