"""Area, shape, color and texture of cells, from their masks."""

import dataclasses

import numpy as np
import pytest
from drawn_images import Images, cells

from leuk.metrics.baselines import (
    MEASURES,
    Morphology,
    MorphologyExtractor,
    measure,
    measure_each,
    morphology_distance,
)

# Morphology


def ellipse(wide: float, high: float, side: int = 128) -> Images:
    y, x = np.mgrid[:side, :side] - side / 2
    inside = (x / wide) ** 2 + (y / high) ** 2 < 1
    return (inside[..., None] * np.array([100, 50, 200])).astype(np.uint8)


def test_morphology_of_drawn_ellipses() -> None:
    image = ellipse(40, 20)
    image[:2, :5] = 255
    (row,) = measure(image[None]).values
    found = dict(zip(MEASURES, row, strict=True))
    assert found["area"] == pytest.approx(np.pi * 40 * 20 / 128**2, rel=0.02)
    assert found["eccentricity"] == pytest.approx((1 - 0.25) ** 0.5, rel=0.01)
    assert found["solidity"] == pytest.approx(1, abs=0.03)
    assert (found["red"], found["green"], found["blue"]) == (100, 50, 200)
    assert found["texture"] == 0
    assert found["specks"] == pytest.approx(10 / (10 + np.pi * 40 * 20), rel=0.02)


def test_texture_excludes_the_border() -> None:
    smooth = cells(1, 0, radius=12)
    rough = smooth.copy()
    rough[:, ::2] //= 2
    assert measure(rough).values[0, 6] > 2 * measure(smooth).values[0, 6]


def test_empty_and_tiny_cells_are_measured() -> None:
    images = np.zeros((3, 16, 16, 3), np.uint8)
    images[1, 4, 4:9] = 200
    images[2, 4, 4] = 200
    found = measure(images)
    assert (found.empty, len(found.values), found.empty_share) == (1, 2, pytest.approx(1 / 3))
    assert np.isfinite(found.values).all()
    nothing = morphology_distance(measure(images[:1]), found)
    assert set(nothing.values()) == {None}


def test_empty_images_have_a_row_of_measures() -> None:
    images = cells(3, 0)
    images[1] = 0
    rows = measure_each(images)
    assert rows.shape == (3, len(MEASURES))
    assert (rows[1] == 0).all()
    np.testing.assert_array_equal(rows[[0, 2]], measure(images).values)
    whole = Morphology.of(rows)
    assert whole.empty == 1
    np.testing.assert_array_equal(whole.values, measure(images).values)


def test_features_are_in_standard_deviations_of_the_given_images() -> None:
    given, new = cells(200, 0), cells(20, 1)
    features = MorphologyExtractor(given)(new)
    values = measure(given).values
    spread = values.std(axis=0)
    assert spread[-1] == 0  # drawn cells have no specks
    spread[-1] = 0.01
    expected = (measure(new).values - values.mean(axis=0)) / spread
    np.testing.assert_allclose(features.pooled, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(MorphologyExtractor(given)(new[:5]).pooled, features.pooled[:5])


def test_single_stray_pixel_does_not_outweigh_other_measures() -> None:
    given, new = cells(200, 0), cells(20, 1)
    given[0, 0, 0] = 30
    stray = new.copy()
    stray[:, 0, 0] = 30
    clean, spoilt = (MorphologyExtractor(given)(images).pooled for images in (new, stray))
    assert np.abs(clean - spoilt).max() < 1


def test_morphology_distance_is_in_standard_deviations() -> None:
    real = measure(cells(200, 0))
    moved = dataclasses.replace(real, values=real.values + 2 * real.values.std(axis=0))
    found = morphology_distance(moved, real)
    assert found["area"] == pytest.approx(2)
    assert set(morphology_distance(real, real).values()) == {0}
