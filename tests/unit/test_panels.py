"""Figures of explanations, checked by their values and pixels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from leuk.classifiers.cnn import CNN
from leuk.explain import figures as thesis_figures
from leuk.explain.base import Attribution
from leuk.explain.figures import (
    Canvas,
    Cohort,
    averaged,
    captions,
    described,
    drawn_of,
    limit_of,
    mean_images,
    one_of_each,
    outcome_of,
    printed,
    sampled,
    save_cohort,
    save_figure_9,
    save_figure_10,
    save_figure_11,
    save_overlays,
    save_panels,
    sizes_of,
    to_pixels,
    unlabeled_cohort,
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
    return Attribution(spread(values, segments), "patch", segments=segments)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_zero_is_white_and_the_signs_are_orange_and_purple() -> None:
    maps = torch.zeros(1, SIDE, SIDE)
    maps[0, :, :8], maps[0, :, -8:] = 1, -1
    drawn = drawn_of("x", Attribution(maps, "pixel"))
    cell = to_pixels(cells(1))[0]
    color = drawn.over(0, cell)
    np.testing.assert_allclose(color[:, 12:20], printed(cell)[:, 12:20], atol=0.05)
    assert (color[:, :8, 0] > color[:, :8, 2]).all()
    assert (color[:, -8:, 2] > color[:, -8:, 0]).all()


@pytest.mark.parametrize("factor", [1.0, 1e-6, 1e6])
def test_scale_follows_the_values_and_is_symmetric(factor: float) -> None:
    drawn = drawn_of("x", Attribution(noise() * factor, "pixel"))
    assert drawn.limit == pytest.approx(float(np.percentile(noise().abs().numpy(), 99)) * factor)
    same = drawn_of("x", Attribution(noise(), "pixel"))
    cell = to_pixels(cells(1))[0]
    np.testing.assert_allclose(drawn.over(0, cell), same.over(0, cell), atol=1e-2)


def test_limit_of_sparse_and_of_empty_values() -> None:
    sparse = np.zeros(10_000, np.float32)
    sparse[0] = -3
    assert limit_of(sparse) == 3
    assert limit_of(np.zeros(5, np.float32)) == 1
    assert limit_of(np.zeros(0, np.float32)) == 1


def test_segments_show_the_value_of_the_whole_segment() -> None:
    found = patches()
    drawn = drawn_of("shap_patches", found)
    assert drawn.label == "contribution to the log-odds of leukemia, per patch"
    np.testing.assert_allclose(drawn.values, found.maps.numpy() * 64, rtol=1e-5)
    plain = drawn_of("shap_pixels", Attribution(noise(), "pixel"))
    assert plain.label.endswith("per pixel")


def test_sizes_of_segments_exclude_the_background() -> None:
    segments = np.array([[[-1, 0], [1, 1]]])
    assert sizes_of(segments).tolist() == [[[0, 1], [2, 2]]]


def test_unsigned_maps_start_at_zero() -> None:
    drawn = drawn_of("rollout", Attribution(noise().abs(), "pixel", signed=False))
    canvas = Canvas(4, 2)
    canvas.bar(drawn, 0, 0, 3)
    words = [text.get_text() for text in canvas.axes.texts]
    assert words[0] == "0"
    assert "share of [CLS]" in words[-1]


@pytest.mark.parametrize("value", [0.0, 0.7, float("nan"), float("inf")])
def test_degenerate_maps_are_labeled_and_not_drawn(value: float, tmp_path: Path) -> None:
    maps = noise(2)
    maps[1] = 0
    drawn = drawn_of("x", Attribution(maps, "pixel"))
    save_overlays(tmp_path / "zeros.png", cells(2), drawn, ["a", "b"], "title")
    maps[1] = value
    other = drawn_of("x", Attribution(maps, "pixel"))
    save_overlays(tmp_path / "other.png", cells(2), other, ["a", "b"], "title")
    np.testing.assert_array_equal(pixels(tmp_path / "zeros.png"), pixels(tmp_path / "other.png"))
    canvas = Canvas(2, 2)
    canvas.map(other, 1, to_pixels(cells(2))[1], (0, 0, 1))
    assert [text.get_text() for text in canvas.axes.texts] == ["degenerate"]
    canvas = Canvas(2, 2)
    canvas.map(other, 0, to_pixels(cells(2))[0], (0, 0, 1))
    assert not canvas.axes.texts


def test_maps_show_their_quality_measures() -> None:
    checks = {"r2": torch.tensor([0.914, 1.0]), "additivity_error": torch.tensor([1e-9, 0.25])}
    drawn = drawn_of("lime", Attribution(noise(2), "pixel", checks=checks))
    assert drawn.notes == ["R² 0.91, additivity error < 0.01", "R² 1.00, additivity error 0.25"]


def test_borders_are_between_segments() -> None:
    canvas = Canvas(2, 2)
    canvas.borders(np.repeat([[0, 0, 1, 1]], 4, axis=0), (0.5, 0.5, 1.0), "white")
    (lines,) = canvas.axes.collections
    ends = np.array([path.vertices for path in lines.get_paths()])
    assert ends.shape == (4, 2, 2)
    assert (ends[..., 0] == 1.0).all()
    assert ends[..., 1].min() == 0.5
    assert ends[..., 1].max() == 1.5


def test_captions_of_means_mention_the_balanced_sample() -> None:
    words = sampled(cohort())
    assert words == "4 test images, balanced by outcome: not the test population"
    unknown = unlabeled_cohort(["a", "b"], cells(2), [0.4, 0.6], cells(1), 2)
    assert sampled(unknown) == "2 images without labels"


def test_means_are_by_outcome_without_degenerate_maps() -> None:
    maps = noise()
    maps[3] = float("nan")
    mean = averaged(cohort(), Attribution(maps, "pixel", signed=False))
    torch.testing.assert_close(mean.maps[0], maps[0])
    torch.testing.assert_close(mean.maps[1], maps[1])
    torch.testing.assert_close(mean.maps[2], maps[2])
    assert mean.degenerate.tolist() == [False, False, False, True]
    assert not mean.signed
    images = mean_images(cohort())
    np.testing.assert_allclose(images[2], to_pixels(cohort().images[2:]).mean(axis=0), atol=1e-6)
    assert not images[3].any()


def test_image_is_described_by_score_truth_and_verdict() -> None:
    source, prediction = described(cohort(), 1)
    assert source == "fold_1/1.bmp    ALL-2"
    assert prediction == "score 0.20 for leukemia, truth: leukemic, WRONG (false negative)"
    assert captions(cohort(), [0]) == ["ALL-1   0.90   right"]
    unknown = unlabeled_cohort(["new/a.bmp"], cells(1), [0.4], cells(1), 1)
    assert described(unknown, 0)[1] == "score 0.40 for leukemia, truth unknown"
    assert captions(unknown, [0]) == ["a   0.40   "]


def test_each_shown_image_has_a_panel(tmp_path: Path) -> None:
    found = {"x": Attribution(noise(), "pixel"), "shap_patches": patches()}
    drawn = {name: drawn_of(name, maps) for name, maps in found.items()}
    names = save_panels(tmp_path, cohort(), drawn, "model")
    assert names == ["panels/00007.png", "panels/00008.png", "panels/00009.png"]
    assert sorted(path.name for path in (tmp_path / "panels").iterdir()) == [
        Path(name).name for name in names
    ]
    other = drawn | {"x": drawn_of("x", Attribution(-noise(), "pixel"))}
    before = pixels(tmp_path / names[0])
    save_panels(tmp_path, cohort(), other, "model")
    assert (pixels(tmp_path / names[0]) != before).any()


def test_cohort_figure_follows_the_maps(tmp_path: Path) -> None:
    maps = noise()
    for name in ("one", "two"):
        save_cohort(tmp_path / f"{name}.png", cohort(), {"x": Attribution(maps, "pixel")}, "model")
        maps = -maps
    one, two = (pixels(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert one.shape == two.shape
    assert (one != two).any()


@pytest.fixture
def cnn() -> CNN:
    torch.manual_seed(0)
    return CNN(resolution=SIDE, widths=(4, 8, 8), hidden=8).eval()


@pytest.mark.parametrize("most", [12, 3])
def test_figure_9_shows_layers_from_first_to_last(
    most: int, cnn: CNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thesis_figures, "_MOST_LAYERS", most)
    layers = save_figure_9(tmp_path / "figure_9.png", cnn, cohort(), "model")
    every = thesis_figures.layers_of(cnn)
    assert layers[0] == every[0] == "blocks.0.0"
    assert layers[-1] == every[-1]
    assert len(layers) == min(most, len(every))
    assert (pixels(tmp_path / "figure_9.png") < 250).any()


def test_figure_9_shows_an_image_of_each_class_preferably_predicted_correctly() -> None:
    one = cohort()
    assert one_of_each(one) == [0, 2]
    one.table.loc[0, "outcome"] = "false negative"
    one.table.loc[1, "outcome"] = "true positive"
    assert one_of_each(one) == [1, 2]
    unknown = unlabeled_cohort(["a", "b"], cells(2), [0.4, 0.6], cells(1), 2)
    assert one_of_each(unknown) == [0]


Save = Callable[[Path, Cohort, dict[str, Attribution], str], None]


@pytest.mark.parametrize("save", [save_figure_10, save_figure_11])
@pytest.mark.parametrize("known", [True, False])
def test_figures_10_and_11_follow_the_maps(save: Save, known: bool, tmp_path: Path) -> None:
    one = cohort()
    if not known:
        one = unlabeled_cohort(list("abcd"), one.images, SCORES, one.background, 2)
    skewed = Attribution(patches().maps.abs(), "patch", segments=patches().segments)
    for name, maps in (("one", patches()), ("two", skewed)):
        found = {"lime": Attribution(noise(), "pixel"), "lime_patches": maps}
        save(tmp_path / f"{name}.png", one, found, "model")
    pictures = [pixels(tmp_path / f"{name}.png") for name in ("one", "two")]
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()


def test_figures_accept_all_degenerate_maps(cnn: CNN, tmp_path: Path) -> None:
    nothing = {"shap_pixels": Attribution(torch.zeros(4, SIDE, SIDE), "pixel")}
    save_figure_10(tmp_path / "figure_10.png", cohort(), nothing, "model")
    save_figure_11(tmp_path / "figure_11.png", cohort(), nothing, "model")
    save_cohort(tmp_path / "cohort.png", cohort(), nothing, "model")
    assert len(list(tmp_path.iterdir())) == 3
