"""Figures of explanations, checked by their values and by what Matplotlib is to draw."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from leuk.classifiers.cnn import CNN
from leuk.explain import figures
from leuk.explain.base import Attribution
from leuk.explain.cohort import OUTCOMES, UNKNOWN, Cohort, outcome_of, unlabeled_cohort
from leuk.explain.figures import (
    averaged,
    captions,
    cohort_figure,
    described,
    drawn_of,
    figure_9,
    figure_10,
    figure_11,
    mean_images,
    one_of_each,
    panel,
    printed,
    sampled,
    save_overlays,
    save_panels,
    sizes_of,
    to_pixels,
    verdict,
)
from leuk.explain.perturb import patch_segments, spread

SIDE = 32
SCORES = [0.9, 0.2, 0.1, 0.3]


def cells(count: int) -> Tensor:
    """Discs of differing brightness on black."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    disc = torch.from_numpy((np.hypot(x, y) < SIDE / 3).astype(np.float32))
    speckles = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return disc * (0.3 + 0.4 * speckles)


def cohort() -> Cohort:
    """A true positive, a false negative and two true negatives; no false positive."""
    labels = [1, 1, 0, 0]
    outcomes = [outcome_of(*both) for both in zip(labels, SCORES, strict=True)]
    table = pd.DataFrame(
        {
            "row": [7, 8, 9, 10],
            "subject": ["ALL-1", "ALL-2", "HEM-1", "HEM-2"],
            "patient": ["a", "b", "c", "d"],
            "file": [f"fold_1/{i}.bmp" for i in range(4)],
            "label": labels,
            "score": SCORES,
            "outcome": outcomes,
            "shown": [True, True, True, False],
        }
    )
    return Cohort(table, cells(4), cells(2))


def noise(count: int = 4) -> Tensor:
    return torch.randn(count, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def patches(count: int = 4) -> Attribution:
    segments = patch_segments(SIDE, 16, count)
    values = torch.randn(count, 16, generator=torch.Generator().manual_seed(2))
    return Attribution(spread(values, segments), "patch", segments=segments, title="patches")


def texts(figure: Figure) -> str:
    """All titles, labels and texts of a figure."""
    figure.draw_without_rendering()
    found = [figure.get_suptitle()]
    for axis in figure.axes:
        found += [axis.get_title(loc="left"), axis.get_title(), axis.get_xlabel()]
        found += [text.get_text() for text in axis.texts]
    return "\n".join(found)


def arrays(figure: Figure) -> list[np.ndarray]:
    """Pictures of a figure, without its color bars."""
    found = [np.asarray(image.get_array()) for axis in figure.axes for image in axis.images]
    return [array for array in found if len(array) > 1]


def test_zero_is_white_and_the_signs_are_orange_and_purple() -> None:
    maps = torch.zeros(1, SIDE, SIDE)
    maps[0, :, :8], maps[0, :, -8:] = 1, -1
    image = cells(1)[0]
    color = drawn_of(Attribution(maps, "pixel")).over(0, image)
    np.testing.assert_allclose(color[:, 12:20], printed(image)[:, 12:20], atol=0.05)
    assert (color[:, :8, 0] > color[:, :8, 2]).all()
    assert (color[:, -8:, 2] > color[:, -8:, 0]).all()


@pytest.mark.parametrize("factor", [1.0, 1e-6, 1e6])
def test_scale_follows_the_values_and_is_symmetric(factor: float) -> None:
    drawn = drawn_of(Attribution(noise() * factor, "pixel"))
    assert drawn.limit == pytest.approx(float(np.percentile(noise().abs().numpy(), 99)) * factor)
    same, image = drawn_of(Attribution(noise(), "pixel")), cells(1)[0]
    np.testing.assert_allclose(drawn.over(0, image), same.over(0, image), atol=1e-2)


def test_limit_of_sparse_and_of_empty_values() -> None:
    sparse = torch.zeros(1, 100, 100)
    assert drawn_of(Attribution(sparse, "pixel")).limit == 1
    sparse[0, 0, 0] = -3
    assert drawn_of(Attribution(sparse, "pixel")).limit == 3


def test_segments_show_the_value_of_the_whole_segment() -> None:
    drawn = drawn_of(patches())
    assert drawn.label == "contribution to the log-odds of leukemia, per patch"
    np.testing.assert_allclose(drawn.values, patches().maps.numpy() * 64, rtol=1e-5)
    assert drawn_of(Attribution(noise(), "pixel")).label.endswith("per pixel")
    assert sizes_of(np.array([[[-1, 0], [1, 1]]])).tolist() == [[[0, 1], [2, 2]]]


def test_color_bars_of_unsigned_maps_start_at_zero() -> None:
    maps = Attribution(noise().abs(), "pixel", signed=False, quantity="share of [CLS]")
    figure = panel(cohort(), {"x": drawn_of(maps)}, 0, "model")
    (bar,) = (axis for axis in figure.axes if axis.get_xlabel())
    assert bar.get_xlabel() == "share of [CLS], per pixel"
    assert bar.get_xlim()[0] == 0
    assert bar.get_xticklabels()[0].get_text() == "0"


@pytest.mark.parametrize("value", [0.0, 0.7, float("nan"), float("inf")])
def test_degenerate_maps_are_labeled_and_not_drawn(value: float) -> None:
    maps = noise()
    maps[1] = value
    drawn = {"x": drawn_of(Attribution(maps, "pixel"))}
    figure = panel(cohort(), drawn, 1, "model")
    assert "degenerate" in texts(figure)
    np.testing.assert_array_equal(arrays(figure)[1], printed(cohort().images[1]))
    assert "degenerate" not in texts(panel(cohort(), drawn, 0, "model"))


def test_overlays_show_each_image_beside_its_map(tmp_path: Path) -> None:
    for name, maps in (("one", noise(2)), ("two", -noise(2))):
        drawn = drawn_of(Attribution(maps, "pixel"))
        save_overlays(tmp_path / f"{name}.png", cells(2), drawn, ["$a", "b"], "costs $5")
    one, two = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("one", "two"))
    assert one.shape == two.shape
    assert (one != two).any()


def test_maps_show_their_quality_measures() -> None:
    checks = {"r2": torch.tensor([0.914, 1.0]), "additivity_error": torch.tensor([1e-9, 0.25])}
    drawn = drawn_of(Attribution(noise(2), "pixel", checks=checks))
    assert drawn.notes == ["R² 0.91, additivity error < 0.01", "R² 1.00, additivity error 0.25"]


def test_borders_are_between_segments() -> None:
    axis: Axes = Figure().subplots()
    figures._show_borders(axis, np.repeat([[0, 0, 1, 1]], 4, axis=0), "white")
    (lines,) = axis.collections
    ends = np.array([path.vertices for path in lines.get_paths()])
    assert ends.shape == (4, 2, 2)
    assert (ends[..., 0] == 1.5).all()
    assert (ends[..., 1].min(), ends[..., 1].max()) == (-0.5, 3.5)


def test_captions_of_means_mention_the_balanced_sample() -> None:
    words = sampled(cohort())
    assert words == "4 test images, balanced by outcome: not the test population"
    unknown = unlabeled_cohort(["a", "b"], cells(2), [0.4, 0.6], cells(1), 2)
    assert sampled(unknown) == "2 images without labels"


def test_means_are_by_outcome_without_degenerate_maps() -> None:
    maps = noise()
    maps[3] = float("nan")
    mean = averaged(cohort(), Attribution(maps, "pixel", signed=False))
    torch.testing.assert_close(mean.maps[:3], maps[:3])
    assert mean.degenerate.tolist() == [False, False, False, True]
    assert not mean.signed
    images = mean_images(cohort())
    torch.testing.assert_close(images[2], cohort().images[2:].mean(dim=0))
    assert not images[3].any()


def test_cohort_figure_has_a_row_per_outcome() -> None:
    figure = cohort_figure(cohort(), {"x": Attribution(noise(), "pixel", title="X")}, "model")
    words = texts(figure)
    assert "false negative\nleukemic,\npredicted healthy\nn = 1" in words
    assert "no such image among those explained" in words
    assert len(arrays(figure)) == 2 * 3
    np.testing.assert_allclose(arrays(figure)[0], to_pixels(cohort().images[0]))


def test_image_is_described_by_score_truth_and_verdict() -> None:
    prediction, source = described(cohort(), 1).split("\n")
    assert source == "fold_1/1.bmp    ALL-2"
    assert prediction == "score 0.20 for leukemia, truth: leukemic, WRONG (false negative)"
    assert captions(cohort(), [0]) == ["ALL-1   0.90   right"]
    unknown = unlabeled_cohort(["new/a.bmp"], cells(1), [0.4], cells(1), 1)
    assert described(unknown, 0).startswith("score 0.40 for leukemia, truth unknown\nnew/a.bmp")
    assert captions(unknown, [0]) == ["a   0.40   "]


def test_verdicts_are_about_the_prediction_not_the_class() -> None:
    verdicts = [verdict(outcome) for outcome in (*OUTCOMES, UNKNOWN)]
    assert verdicts == ["right", "WRONG", "right", "WRONG", ""]


def test_each_shown_image_has_a_panel(tmp_path: Path) -> None:
    found = {"x": Attribution(noise(), "pixel"), "shap_patches": patches()}
    drawn = {name: drawn_of(maps) for name, maps in found.items()}
    (tmp_path / "panels").mkdir()
    (tmp_path / "panels/00001.png").touch()
    names = save_panels(tmp_path, cohort(), drawn, "model")
    assert names == ["panels/00007.png", "panels/00008.png", "panels/00009.png"]
    assert sorted(f"panels/{path.name}" for path in (tmp_path / "panels").iterdir()) == names
    image, *maps = arrays(panel(cohort(), drawn, 1, "model"))
    np.testing.assert_allclose(image, to_pixels(cohort().images[1]))
    for one, own in zip(maps, drawn.values(), strict=True):
        np.testing.assert_allclose(one, own.over(1, cohort().images[1]))


def test_pixels_and_maps_are_drawn_at_their_position() -> None:
    image = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    pixels = to_pixels(image)
    for row, column, channel in ((0, 3, 1), (2, 1, 0), (3, 0, 2)):
        assert pixels[0, row, column, channel] == float(image[0, channel, row, column])
    maps = torch.zeros(1, 8, 8)
    maps[0, 1, 6] = 1
    color = drawn_of(Attribution(maps, "pixel")).over(0, torch.zeros(3, 8, 8))
    assert np.unravel_index(color.sum(axis=2).argmin(), (8, 8)) == (1, 6)


@pytest.fixture
def cnn() -> CNN:
    torch.manual_seed(0)
    return CNN(resolution=SIDE, widths=(4, 8, 8), hidden=8).eval()


@pytest.mark.parametrize("most", [12, 3])
def test_figure_9_shows_layers_from_first_to_last(
    most: int, cnn: CNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "_MOST_LAYERS", most)
    figure = figure_9(cnn, cohort(), "model")
    every = figures.layers_of(cnn)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    layers = [title.partition("\nscale")[0] for title in titles if "scale" in title]
    assert layers[0] == every[0] == "blocks.0.0"
    assert layers[-1] == every[-1]
    assert len(layers) == min(most, len(every))


def test_figure_9_draws_the_map_of_each_class_beside_its_name(
    cnn: CNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = torch.stack([torch.linspace(value, -value, SIDE**2) for value in (-0.5, 1.0)])
    monkeypatch.setattr(
        figures.GradCAM, "of_classes", lambda *_: maps.view(2, 1, SIDE, SIDE).repeat(1, 2, 1, 1)
    )
    figure = figure_9(cnn, cohort(), "model")
    rows = {
        text.get_text().split("\n")[1]: axis.get_subplotspec().rowspan.start
        for axis in figure.axes
        for text in axis.texts
        if text.get_text().startswith("evidence for")
    }
    assert rows == {"leukemia": 2, "healthy": 3}
    for axis in figure.axes:
        place = axis.get_subplotspec()
        if place.colspan.start == 2 and place.rowspan.start in (2, 3):
            corner = np.asarray(axis.images[0].get_array())[0, 0]
            # Orange, evidence for leukemia, is redder than blue, and purple bluer than red.
            assert (corner[0] > corner[2]) == (place.rowspan.start == 2)


def test_figure_9_shows_an_image_of_each_class_preferably_predicted_correctly() -> None:
    one = cohort()
    assert one_of_each(one) == [0, 2]
    one.table.loc[0, "outcome"] = "false negative"
    one.table.loc[1, "outcome"] = "true positive"
    assert one_of_each(one) == [1, 2]
    unknown = unlabeled_cohort(["a", "b"], cells(2), [0.4, 0.6], cells(1), 2)
    assert one_of_each(unknown) == [0]


def test_long_layer_names_are_broken_at_dots() -> None:
    assert figures._broken("blocks.0.0", 19) == "blocks.0.0"
    assert figures._broken("encoder.layers.10.attention.norm", 19) == (
        "encoder.layers.10\n.attention.norm"
    )


Draw = Callable[[Cohort, dict[str, Attribution], str], Figure]


@pytest.mark.parametrize("draw", [figure_10, figure_11])
@pytest.mark.parametrize("known", [True, False])
def test_figures_10_and_11_have_a_part_per_method(draw: Draw, known: bool) -> None:
    one = cohort()
    if not known:
        one = unlabeled_cohort(list("abcd"), one.images, SCORES, one.background, 2)
    found = {"x": Attribution(noise(), "pixel", title="pixels"), "y": patches()}
    words = texts(draw(one, found, "model"))
    assert "pixels" in words
    assert "patches" in words
    if draw is figure_11:
        assert "patches: 16 segments" in words


def test_figure_10_has_the_distribution_of_each_class() -> None:
    maps = Attribution(noise() + torch.tensor([3.0, 3, -3, -3])[:, None, None], "pixel", title="x")
    upper, lower = figure_10(cohort(), {"x": maps}, "model").axes
    leukemic, healthy = upper.patches
    assert [patch.get_label() for patch in (leukemic, healthy)] == [
        "leukemic cells (2)",
        "healthy cells (2)",
    ]
    for axis in (upper, lower):
        for patch, sign in zip(axis.patches, (1, -1), strict=True):
            shares, edges, _ = patch.get_data()
            assert shares.sum() == pytest.approx(1, abs=0.01)
            assert sign * (shares * (edges[1:] + edges[:-1])).sum() > 0


def test_figures_accept_all_degenerate_maps() -> None:
    nothing = {"x": Attribution(torch.zeros(4, SIDE, SIDE), "pixel")}
    assert "all degenerate" in texts(figure_10(cohort(), nothing, "model"))
    for draw in (figure_11, cohort_figure):
        assert texts(draw(cohort(), nothing, "model")).count("degenerate") >= 3
