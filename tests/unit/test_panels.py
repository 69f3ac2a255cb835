"""Figures of explanations, checked by their values and by what Matplotlib is to draw."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from explained import SIDE, some_cells
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
    caption,
    cohort_figure,
    described,
    drawn_of,
    figure_9,
    figure_10,
    figure_11,
    one_of_each,
    panel,
    printed,
    save_overlays,
    save_panels,
    to_pixels,
    verdict,
)
from leuk.explain.perturb import patch_segments, spread

SCORES = [0.9, 0.2, 0.1, 0.3]
CELLS = some_cells(4)
NOISE = torch.randn(4, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def cohort() -> Cohort:
    """A true positive, a false negative and two true negatives; no false positive."""
    table = pd.DataFrame(
        {
            "row": [7, 8, 9, 10],
            "subject": ["ALL-1", "ALL-2", "HEM-1", "HEM-2"],
            "file": [f"fold_1/{i}.bmp" for i in range(4)],
            "label": [1, 1, 0, 0],
            "score": SCORES,
            "shown": [True, True, True, False],
        }
    )
    outcomes = [outcome_of(*both) for both in zip(table["label"], SCORES, strict=True)]
    return Cohort(table.assign(outcome=outcomes), CELLS, CELLS[:2])


UNKNOWNS = unlabeled_cohort([f"new/{i}.bmp" for i in range(4)], CELLS, SCORES, CELLS, 2)


def patches() -> Attribution:
    segments = patch_segments(SIDE, 16, 4)
    values = torch.randn(4, 16, generator=torch.Generator().manual_seed(2))
    return Attribution(spread(values, segments), "patch", segments=segments, title="patches")


def pixels(maps: Tensor = NOISE, **how: Any) -> Attribution:
    return Attribution(maps, "pixel", title="pixels", **how)


def texts(figure: Figure) -> str:
    """All titles, labels and texts of a figure."""
    found = [figure.get_suptitle()]
    for axis in figure.axes:
        found += [axis.get_title(loc="left"), axis.get_title(), axis.get_xlabel()]
        found += [axis.get_ylabel(), *(text.get_text() for text in axis.texts)]
    return "\n".join(found)


def arrays(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axis in figure.axes for image in axis.images]


def test_zero_is_white_and_the_signs_are_orange_and_purple() -> None:
    maps = torch.zeros(1, SIDE, SIDE)
    maps[0, :, :8], maps[0, :, -8:] = 1, -1
    color = drawn_of(pixels(maps)).over(0, CELLS[0])
    np.testing.assert_allclose(color[:, 12:20], printed(CELLS[0])[:, 12:20], atol=0.05)
    assert (color[:, :8, 0] > color[:, :8, 2]).all()
    assert (color[:, -8:, 2] > color[:, -8:, 0]).all()


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_scale_follows_the_values_and_is_symmetric(factor: float) -> None:
    drawn, same = drawn_of(pixels(NOISE * factor)), drawn_of(pixels())
    assert drawn.limit == pytest.approx(float(np.percentile(NOISE.abs().numpy(), 99)) * factor)
    np.testing.assert_allclose(drawn.over(0, CELLS[0]), same.over(0, CELLS[0]), atol=1e-2)


def test_limit_of_sparse_and_of_empty_values() -> None:
    sparse = torch.zeros(1, 100, 100)
    assert drawn_of(pixels(sparse)).limit == 1
    sparse[0, 0, 0] = -3
    assert drawn_of(pixels(sparse)).limit == 3


def test_segments_show_the_value_of_the_whole_segment() -> None:
    drawn = drawn_of(patches())
    assert drawn.label == "contribution to the log-odds of leukemia, per patch"
    np.testing.assert_allclose(drawn.values, patches().maps.numpy() * 64, rtol=1e-5)
    assert drawn_of(pixels()).label.endswith("per pixel")


def test_color_bars_of_unsigned_maps_start_at_zero() -> None:
    maps = pixels(NOISE.abs(), signed=False, quantity="share of [CLS]")
    *_, bar = panel(cohort(), {"x": drawn_of(maps)}, 0, "model").axes
    assert bar.get_xlabel() == "share of [CLS], per pixel"
    assert bar.get_xlim()[0] == 0
    assert bar.get_xticklabels()[0].get_text() == "0"


@pytest.mark.parametrize("value", [0.7, float("nan"), float("inf")])
def test_degenerate_maps_are_labeled_and_not_drawn(value: float) -> None:
    maps = NOISE.clone()
    maps[1] = value
    drawn = {"x": drawn_of(pixels(maps))}
    figure = panel(cohort(), drawn, 1, "model")
    assert "degenerate" in texts(figure)
    np.testing.assert_array_equal(arrays(figure)[1], printed(CELLS[1]))
    assert "degenerate" not in texts(panel(cohort(), drawn, 0, "model"))


def test_overlays_show_each_image_beside_its_map(tmp_path: Path) -> None:
    for name, maps in (("one", NOISE[:2]), ("two", -NOISE[:2])):
        drawn = drawn_of(pixels(maps))
        save_overlays(tmp_path / f"{name}.png", CELLS[:2], drawn, ["$a", "b"], "costs $5")
    one, two = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("one", "two"))
    assert one.shape == two.shape
    assert (one != two).any()


def test_maps_show_their_quality_measures() -> None:
    checks = {"r2": torch.tensor([0.914, 1.0]), "additivity_error": torch.tensor([1e-9, 0.25])}
    drawn = drawn_of(pixels(NOISE[:2], checks=checks))
    assert drawn.notes == ["R² 0.91, additivity error < 0.01", "R² 1.00, additivity error 0.25"]


def test_borders_are_between_segments() -> None:
    axis: Axes = Figure().subplots()
    figures._draw_borders(axis, np.repeat([[0, 0, 1, 1]], 4, axis=0), "white")
    (lines,) = axis.collections
    ends = np.array([path.vertices for path in lines.get_paths()])
    assert ends.shape == (4, 2, 2)
    assert (ends[..., 0] == 1.5).all()
    assert (ends[..., 1].min(), ends[..., 1].max()) == (-0.5, 3.5)


def test_means_are_by_group_without_degenerate_maps() -> None:
    maps = NOISE.clone()
    maps[3] = float("nan")
    mean = averaged(pixels(maps, signed=False), [[0, 1], [2, 3], [3]])
    torch.testing.assert_close(mean.maps[0], maps[:2].mean(dim=0))
    torch.testing.assert_close(mean.maps[1], maps[2])
    assert mean.degenerate.tolist() == [False, False, True]
    assert not mean.signed


def test_cohort_figure_has_a_row_per_outcome_and_names_the_absent_ones() -> None:
    figure = cohort_figure(cohort(), {"x": pixels()}, "model")
    words = texts(figure)
    assert "4 test images, balanced by outcome: not the test population" in words
    assert "false negative\nleukemic,\npredicted healthy\nn = 1" in words
    assert "no false positive (healthy, predicted leukemic)" in words
    assert len(arrays(figure)) == 2 * 3
    np.testing.assert_allclose(arrays(figure)[0], to_pixels(CELLS[0]))
    np.testing.assert_allclose(arrays(figure)[4], to_pixels(CELLS[2:].mean(dim=0)))
    assert "4 images without labels" in texts(cohort_figure(UNKNOWNS, {"x": pixels()}, "model"))


def test_image_is_described_by_score_truth_and_verdict() -> None:
    prediction, source = described(cohort(), 1).split("\n")
    assert source == "fold_1/1.bmp    ALL-2"
    assert prediction == "score 0.20 for leukemia, truth: leukemic, WRONG (false negative)"
    assert caption(cohort(), 0) == "ALL-1   0.90   right"
    assert described(UNKNOWNS, 0).startswith("score 0.90 for leukemia, truth unknown\nnew/0.bmp")
    assert caption(UNKNOWNS, 0) == "0   0.90   "
    # The verdict is about the prediction, not the class.
    verdicts = [verdict(outcome) for outcome in (*OUTCOMES, UNKNOWN)]
    assert verdicts == ["right", "WRONG", "right", "WRONG", ""]


def test_each_shown_image_has_a_panel(tmp_path: Path) -> None:
    drawn = {"x": drawn_of(pixels()), "shap_patches": drawn_of(patches())}
    (tmp_path / "panels").mkdir()
    (tmp_path / "panels/00001.png").touch()
    names = save_panels(tmp_path, cohort(), drawn, "model")
    assert names == ["panels/00007.png", "panels/00008.png", "panels/00009.png"]
    assert sorted(f"panels/{path.name}" for path in (tmp_path / "panels").iterdir()) == names
    image, *maps = arrays(panel(cohort(), drawn, 1, "model"))
    np.testing.assert_allclose(image, to_pixels(CELLS[1]))
    for one, own in zip(maps, drawn.values(), strict=True):
        np.testing.assert_allclose(one, own.over(1, CELLS[1]))


def test_pixels_and_maps_are_drawn_at_their_position() -> None:
    image = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    for row, column, channel in ((0, 3, 1), (2, 1, 0), (3, 0, 2)):
        assert to_pixels(image)[row, column, channel] == float(image[channel, row, column])
    maps = torch.zeros(1, 8, 8)
    maps[0, 1, 6] = 1
    color = drawn_of(pixels(maps)).over(0, torch.zeros(3, 8, 8))
    assert np.unravel_index(color.sum(axis=2).argmin(), (8, 8)) == (1, 6)


@pytest.mark.parametrize("most", [12, 3])
def test_figure_9_shows_layers_from_first_to_last(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cnn = CNN(resolution=SIDE, widths=(4, 8, 8), hidden=8).eval()
    monkeypatch.setattr(figures, "_MOST_LAYERS", most)
    every = figures.layers_of(cnn)
    titles = [axis.get_title(loc="left") for axis in figure_9(cnn, cohort(), "model").axes]
    layers = [title.partition("\nscale")[0] for title in titles if "scale" in title]
    assert layers[0] == every[0] == "blocks.0.0"
    assert layers[-1] == every[-1]
    assert len(layers) == min(most, len(every))


def test_figure_9_draws_the_map_of_each_class_beside_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maps = torch.stack([torch.linspace(value, -value, SIDE**2) for value in (-0.5, 1.0)])
    own = maps.view(2, 1, SIDE, SIDE).repeat(1, 2, 1, 1)
    name = "encoder.layers.10.attention.norm"
    monkeypatch.setattr(figures.GradCAM, "of_classes", lambda *_: own)
    monkeypatch.setattr(figures, "layers_of", lambda _: [name])
    cnn = CNN(resolution=SIDE, widths=(4,), hidden=8)
    axes = figure_9(cnn, cohort(), "model").axes[:-1]
    assert axes[1].get_title(loc="left").startswith("encoder.layers.10\n.attention.norm\nscale: 1")
    for plain, drawn in zip(axes[::2], axes[1::2], strict=True):
        corner = np.asarray(drawn.images[0].get_array())[0, 0]
        # Orange, evidence for the class, is redder than blue, and purple bluer than red.
        assert (corner[0] > corner[2]) == (plain.get_ylabel() == "evidence for\nleukemia")


def test_figure_9_shows_an_image_of_each_class_preferably_predicted_correctly() -> None:
    one = cohort()
    assert one_of_each(one) == [0, 2]
    one.table.loc[:1, "outcome"] = ["false negative", "true positive"]
    assert one_of_each(one) == [1, 2]
    assert one_of_each(UNKNOWNS) == [0]


@pytest.mark.parametrize("draw", [figure_10, figure_11])
@pytest.mark.parametrize("own", [cohort(), UNKNOWNS], ids=["known", "unknown"])
def test_figures_10_and_11_have_a_part_per_method(draw: Any, own: Cohort) -> None:
    words = texts(draw(own, {"x": pixels(), "y": patches()}, "model"))
    assert "pixels" in words
    assert ("patches: 16 segments" if draw is figure_11 else "patches") in words


def test_figure_10_has_the_distribution_of_each_class() -> None:
    maps = pixels(NOISE + torch.tensor([3.0, 3, -3, -3])[:, None, None])
    upper, lower = figure_10(cohort(), {"x": maps}, "model").axes
    labels = [patch.get_label() for patch in upper.patches]
    assert labels == ["leukemic cells (2)", "healthy cells (2)"]
    for axis in (upper, lower):
        for patch, sign in zip(axis.patches, (1, -1), strict=True):
            shares, edges, _ = patch.get_data()
            assert shares.sum() == pytest.approx(1, abs=0.01)
            assert sign * (shares * (edges[1:] + edges[:-1])).sum() > 0


def test_figures_accept_all_degenerate_maps() -> None:
    nothing = {"x": pixels(torch.zeros(4, SIDE, SIDE))}
    assert "all degenerate" in texts(figure_10(cohort(), nothing, "model"))
    for draw in (figure_11, cohort_figure):
        assert texts(draw(cohort(), nothing, "model")).count("degenerate") == 3
