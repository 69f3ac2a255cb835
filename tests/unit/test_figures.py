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

from leuk.metrics.classification import Sample
from leuk.report.comparisons import FAMILIES, compare
from leuk.report.figures import (
    SETTINGS,
    Drawn,
    confusion,
    confusion_figure,
    figures_of,
    forest_figure,
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
    "patients",
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


def test_figures_are_written_for_screen_and_print_and_always_alike(
    configurations: list[Configuration], tmp_path: Path
) -> None:
    drawn = {one.name: one for one in all_figures(configurations)}
    assert tuple(drawn) == NAMES
    assert all(len(one.alt) > 25 and one.caption for one in drawn.values())
    assert drawn["roc"].alt == (
        "ROC curves, a panel per model: AUROC cnn-none 0.900, cnn-dcgan 0.900, vit-none 0.900."
    )
    for name in ("roc", "confusion"):
        png = drawn[name].write(tmp_path / "figures")
        assert drawn[name].write(tmp_path / "again") == png
        for suffix in ("png", "pdf"):
            path = tmp_path / "figures" / f"{name}.{suffix}"
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
        assert np.asarray(Image.open(tmp_path / f"figures/{name}.png").convert("L")).std() > 5
        assert (tmp_path / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")
    assert figures_of([Configuration(RUN, (), ())], [], {}) == []


@pytest.mark.parametrize("long", [False, True])
def test_texts_are_inside_their_figure_and_do_not_overlap(tmp_path: Path, long: bool) -> None:
    names = [f"lr_0.000{number}-weight_decay_0.{number}" for number in range(1, 4)]
    run_ids = [replace(RUN, settings={"lr": name}) for name in names] if long else [RUN]
    run_ids += [varied(run_id, augmentation="dcgan") for run_id in run_ids]
    write_sweep(tmp_path, [*run_ids, varied(run_ids[0], model="vit", augmentation="$x$")])
    for one in all_figures(read_results(tmp_path).configurations):
        with rc_context(SETTINGS):
            figure = one.draw()
            figure.draw_without_rendering()
        legends = [legend.get_window_extent() for legend in figure.legends]
        texts = [text for ax in figure.axes for text in texts_of(ax)]
        boxes = [*legends, *map(Text.get_window_extent, texts)]
        for index, box in enumerate(boxes):
            corners = figure.bbox.padded(1)
            assert corners.contains(box.x0, box.y0), one.name
            assert corners.contains(box.x1, box.y1), one.name
            assert not any(box.overlaps(other) for other in boxes[:index]), one.name
        assert not any(legend.overlaps(ax.bbox) for legend in legends for ax in figure.axes)


def texts_of(ax: Axes) -> list[Text]:
    """Title, labels and visible tick labels."""
    shown = [ax.title]
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        shown += [axis.label, *(label for tick in ticks for label in (tick.label1, tick.label2))]
    return [text for text in shown if text.get_visible() and text.get_text()]


def test_augmentations_of_a_model_share_a_panel(configurations: list[Configuration]) -> None:
    assert list(by_model(configurations)) == ["cnn", "vit"]
    cnn, vit = (looks_of(ax) for ax in roc_figure(configurations).axes)
    assert list(cnn) == ["area alone", "none", "dcgan"]
    assert list(vit) == ["area alone", "none"]
    assert cnn["none"] == vit["none"] != cnn["dcgan"]


def test_configurations_of_an_augmentation_are_labeled_by_settings(tmp_path: Path) -> None:
    synthetic = varied(RUN, augmentation="dcgan")
    run_ids = [replace(synthetic, settings={"gan_fit.epochs": number}) for number in (3, 5)]
    write_sweep(tmp_path, run_ids)
    configurations = list(read_results(tmp_path).configurations)
    (ax,) = roc_figure(configurations).axes
    looks = looks_of(ax)
    assert list(looks)[1:] == [one.title for one in configurations]
    assert len(set(looks.values())) == 3


def looks_of(ax: Axes) -> dict[str, tuple[str, str]]:
    """Color and style of each labeled line."""
    lines = [line for line in ax.lines if not str(line.get_label()).startswith("_")]
    return {str(one.get_label()): (str(one.get_color()), str(one.get_linestyle())) for one in lines}


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
    (ax,) = per_subject_figure(configurations[:1]).axes
    dots = [np.asarray(points.get_offsets())[:, 1] for points in ax.collections[::2]]
    assert [heights.tolist() for heights in dots] == [[-0.18] * 4, [0.18] * 10]


def test_each_difference_has_a_row_below_its_family(tmp_path: Path) -> None:
    names = ("none", "oversample", "class_weights", "dcgan")
    write_sweep(tmp_path, [varied(RUN, augmentation=name) for name in names])
    comparisons = compare(read_results(tmp_path).configurations)
    figure = forest_figure(comparisons, ("control", "augmentation"))
    own = [c for c in comparisons if c.family == "control"]
    own += [c for c in comparisons if c.family == "augmentation"]
    rows = [name for name in rows_of(figure) if name not in FAMILIES.values()]
    assert rows == [one.title for one in own]
    assert len(rows_of(figure)) == len(own) + 2
    differences = [one.result.difference for one in own if one.result]
    assert np.asarray(figure.axes[0].collections[-1].get_offsets())[:, 0].tolist() == differences


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
