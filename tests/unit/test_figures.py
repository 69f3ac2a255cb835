from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from sweeps import RUN, predictions, varied, write_run, write_sweep

from leuk.metrics.arrays import Floats
from leuk.metrics.bootstrap import Sample
from leuk.report.comparisons import compare
from leuk.report.figures import (
    DPI,
    SETTINGS,
    Drawn,
    augmentation_figure,
    confusion,
    confusion_figure,
    differences_figure,
    figures_of,
    heat_map_figure,
    per_subject_figure,
    precision_of,
    roc_figure,
    roc_of,
)
from leuk.report.load import Configuration, read_results
from leuk.report.rows import LEVELS, by_model, configuration_rows, heat_map
from leuk.report.tables import grid_section

NAMES = (
    "grid",
    "augmentation",
    "differences",
    "roc",
    "precision_recall",
    "reliability",
    "confusion",
    "per_subject",
)


@pytest.fixture
def configurations(tmp_path: Path) -> list[Configuration]:
    run_ids = [RUN, replace(RUN, seed=1), varied(RUN, augmentation="dcgan")]
    write_sweep(tmp_path, [*run_ids, replace(RUN, model="vit")])
    return list(read_results(tmp_path).configurations)


def all_figures(configurations: Sequence[Configuration]) -> list[Drawn]:
    heat = heat_map(configurations, configuration_rows(configurations, 20))
    reached = {one.title: {"auroc": 0.9, "ece_calibrated": 0.1} for one in configurations}
    return figures_of(configurations, compare(configurations), reached, heat)


def test_every_figure_is_written_as_picture_and_for_print_and_always_alike(
    configurations: list[Configuration], tmp_path: Path
) -> None:
    drawn = all_figures(configurations)
    assert tuple(one.name for one in drawn) == NAMES
    for one in drawn:
        png = one.write(tmp_path / "figures")
        assert one.write(tmp_path / "again") == png
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {f"{name}.{suffix}" for name in NAMES for suffix in ("png", "pdf")}
    for path in (tmp_path / "figures").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
        if path.suffix == ".png":
            assert np.asarray(Image.open(path).convert("L")).std() > 5, path.name
        else:
            assert path.read_bytes().startswith(b"%PDF")


def test_no_figures_without_runs() -> None:
    assert figures_of([Configuration(RUN, (), ())], [], {}) == []


def test_figures_have_captions_and_alternative_texts(configurations: list[Configuration]) -> None:
    drawn = {one.name: one for one in all_figures(configurations)}
    assert drawn["roc"].alt == (
        "ROC curves of cnn: AUROC none 0.900, dcgan 0.900.",
        "ROC curves of vit: AUROC none 0.900.",
    )
    assert all(one.alt and all(one.alt) and one.caption for one in drawn.values())


def test_a_figure_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    class Broken(Figure):
        def savefig(self, *arguments: object, **options: object) -> None:
            raise RuntimeError("the disk is full")

    (tmp_path / "roc.png").write_text("old")
    with pytest.raises(RuntimeError, match="full"):
        Drawn("roc", "", "", Broken, ("",)).write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["roc.png"]
    assert (tmp_path / "roc.png").read_text() == "old"


@pytest.mark.parametrize("long", [False, True])
def test_texts_are_inside_their_panel_and_do_not_overlap(tmp_path: Path, long: bool) -> None:
    names = [f"lr_0.000{number}-weight_decay_0.{number}" for number in range(1, 4)]
    run_ids = [replace(RUN, settings={"lr": name}) for name in names] if long else [RUN]
    run_ids += [varied(run_id, augmentation="dcgan") for run_id in run_ids]
    write_sweep(tmp_path, [*run_ids, varied(run_ids[0], model="vit", augmentation="$x$")])
    for one in all_figures(read_results(tmp_path).configurations):
        one.write(tmp_path)
        with rc_context(SETTINGS):
            figure = one.draw()
            figure.draw_without_rendering()
        parts = list(figure.subfigs) or [figure]
        for ax in [ax for part in parts for ax in part.axes]:
            part = ax.figure
            legends = [legend.get_window_extent() for legend in part.legends]
            boxes = [*legends, *map(Text.get_window_extent, texts_of(ax))]
            for index, box in enumerate(boxes):
                corners = part.bbox.padded(1)
                assert corners.contains(box.x0, box.y0), one.name
                assert corners.contains(box.x1, box.y1), one.name
                assert not any(box.overlaps(other) for other in boxes[:index]), one.name
            assert not any(legend.overlaps(ax.bbox) for legend in legends)
        if one.panel:
            # A page cuts the picture at the borders of the panels.
            with Image.open(tmp_path / f"{one.name}.png") as picture:
                width, height = picture.size
            size = one.panel[0] * DPI, one.panel[1] * DPI
            assert (width % size[0], height % size[1]) == (0, 0)
            assert len({round(part.bbox.width, 3) for part in parts}) == 1
            assert width / size[0] * (height / size[1]) == len(parts)


def texts_of(ax: Axes) -> list[Text]:
    """Title, labels and visible tick labels."""
    shown = [ax.title]
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        shown += [axis.label, *(label for tick in ticks for label in (tick.label1, tick.label2))]
    return [text for text in shown if text.get_visible() and text.get_text()]


def panels(figure: Figure) -> list[Axes]:
    return [ax for part in figure.subfigs for ax in part.axes]


def test_augmentations_of_a_model_share_a_panel(configurations: list[Configuration]) -> None:
    assert list(by_model(configurations)) == ["cnn", "vit"]
    cnn, vit = panels(roc_figure(configurations))
    labels = [line.get_label() for line in cnn.lines]
    assert labels[1:] == ["area alone", "none", "dcgan"]
    assert len(vit.lines) == 3
    styles = {(line.get_color(), line.get_linestyle()) for line in cnn.lines[2:]}
    assert len(styles) == 2
    assert (cnn.lines[2].get_color(), cnn.lines[2].get_linestyle()) == (
        vit.lines[2].get_color(),
        vit.lines[2].get_linestyle(),
    )


def test_configurations_of_an_augmentation_are_labeled_by_settings(tmp_path: Path) -> None:
    synthetic = varied(RUN, augmentation="dcgan")
    run_ids = [replace(synthetic, settings={"gan_fit.epochs": number}) for number in (3, 5)]
    write_sweep(tmp_path, run_ids)
    configurations = list(read_results(tmp_path).configurations)
    assert list(by_model(configurations)) == ["cnn"]
    (ax,) = panels(roc_figure(configurations))
    lines = ax.lines[2:]
    assert [line.get_label() for line in lines] == [one.title for one in configurations]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 2


def test_curves_of_four_images() -> None:
    sample = Sample(np.array([0.9, 0.8, 0.3, 0.1]), np.array([1, 0, 1, 0]), np.arange(4))
    # At most 0, 0.25, 0.5, 0.75 and 1 of the healthy images called leukemic.
    np.testing.assert_allclose(roc_of(sample)[[0, 1, 50, 101, 200]], [0, 0.5, 0.5, 1, 1])
    np.testing.assert_allclose(precision_of(sample)[[0, 100, 200]], [1, 0.5, 0.5])


def test_counts_are_summed_over_runs_at_their_own_thresholds(
    configurations: list[Configuration],
) -> None:
    configuration = configurations[0]
    assert len(configuration.runs) == 2
    figure = confusion_figure(configurations[:1])
    assert rows_of(figure) == ["cnn-none (160 + 400)"]
    for ax, cut in zip(figure.axes, ("default", "youden"), strict=True):
        counts = np.zeros((2, 2))
        for run in configuration.runs:
            table = predictions(run.id).query("stage == 'test'")
            called = table["score"] >= run.thresholds[cut]
            for label in (0, 1):
                own = called[table["label"] == label]
                counts[label] += [(~own).sum(), own.sum()]
        np.testing.assert_array_equal(confusion(configuration, cut), counts)
        shares = counts / counts.sum(axis=1, keepdims=True)
        assert [text.get_text() for text in ax.texts] == [f"{one:.2f}" for one in shares.flat]


def test_each_patient_has_a_dot(configurations: list[Configuration]) -> None:
    figure = per_subject_figure(configurations)
    (ax,) = figure.axes
    dots = [np.asarray(points.get_offsets())[:, 1] for points in ax.collections[::2]]
    rows = range(len(configurations))
    expected = [np.full(4, row - 0.18) for row in rows] + [np.full(10, row + 0.18) for row in rows]
    for found, heights in zip(dots, expected, strict=True):
        np.testing.assert_allclose(found, heights)
    assert rows_of(figure) == [configuration.title for configuration in configurations]


def test_each_difference_has_a_row(configurations: list[Configuration]) -> None:
    comparisons = compare(configurations)
    (augmented,) = (c for c in comparisons if c.family == "augmentation")
    others = [c for c in comparisons if c is not augmented]
    figure = differences_figure(comparisons)
    names = rows_of(figure)
    assert {one.title for one in others} <= set(names)
    assert len(names) == len(others) + len({one.family for one in others})
    assert len(dots_of(figure.axes[0])) == len(others)
    assert augmented.title not in names


def test_a_forest_of_augmentations_and_controls(tmp_path: Path) -> None:
    names = ("none", "oversample", "class_weights", "dcgan")
    write_sweep(tmp_path, [varied(RUN, augmentation=name) for name in names])
    comparisons = compare(read_results(tmp_path).configurations)
    figure = augmentation_figure(comparisons)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["minus no augmentation", "minus class weights", "minus oversampling"]
    assert [len(dots_of(ax)) for ax in figure.axes] == [3, 1, 1]
    found = {c.other.run.augmentation: c.result for c in comparisons if c.one.title == "cnn-dcgan"}
    assert found["oversample"] is not None
    assert dots_of(figure.axes[2])[0, 0] == found["oversample"].difference


def test_the_grid_has_a_shade_for_each_figure(tmp_path: Path) -> None:
    for strength, name in ((0.2, "none"), (1.0, "wgan"), (3.0, "dcgan")):
        run_id = varied(RUN, augmentation=name)
        write_run(tmp_path, run_id, predictions(run_id, strength=strength))
    write_run(tmp_path, varied(RUN, model="vit", augmentation="cgan"))
    configurations = read_results(tmp_path).configurations
    heat = heat_map(configurations, configuration_rows(configurations, 20))
    assert heat is not None
    assert (heat.rows, heat.columns) == (("cnn", "vit"), ("none", "cgan", "dcgan", "wgan"))
    levels = heat.levels[0]
    assert (levels[0], levels[1], levels[2]) == (0, None, LEVELS - 1)
    assert grid_section(heat).table["dcgan"].tolist()[0] == heat.values[0][2]
    texts = [text.get_text() for text in heat_map_figure(heat).axes[0].texts]
    assert texts[:4] == ["-" if v != v else f"{v:.3f}" for v in heat.values[0]]
    empty = [Configuration(RUN, (), ())]
    assert heat_map(empty, configuration_rows(empty, 20)) is None


def rows_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


def dots_of(ax: Axes) -> Floats:
    return np.asarray(ax.collections[-1].get_offsets())
