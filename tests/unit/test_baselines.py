"""Baselines, and measures of cells from their masks."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from drawn_images import cells
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from leuk.data.datamodule import CNMCDataModule
from leuk.data.decode import Frame
from leuk.data.layouts import index_images
from leuk.data.pixels import PixelStore
from leuk.data.rules import Folds
from leuk.metrics.baselines import (
    BASELINES,
    MEASURES,
    MorphologyExtractor,
    measure_each,
    morphology_distance,
)
from leuk.runs import evaluate as measures_module
from leuk.runs.evaluate import measure_images


@pytest.fixture
def data(phantom: Path, tmp_path: Path) -> CNMCDataModule:
    data = CNMCDataModule(
        str(phantom),
        Folds(train=["fold_0"], val=0.3, test=["fold_1"]),
        resolution=32,
        cache=str(tmp_path),
    )
    data.setup()
    return data


def test_every_image_is_measured_once(
    data: CNMCDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = measure_images(data)
    assert list(table.columns) == list(MEASURES)
    assert len(table) == len(data.dataset)
    np.testing.assert_allclose(table["area"], data.dataset.store.areas)
    others = [name for name in MEASURES if name != "area"]
    expected = pd.DataFrame(measure_each(np.asarray(data.dataset.data[:5])), columns=MEASURES)
    pd.testing.assert_frame_equal(table[others][:5], expected[others])

    def again(_: object) -> None:
        raise AssertionError("measured twice")

    monkeypatch.setattr(measures_module, "measure_each", again)
    pd.testing.assert_frame_equal(measure_images(data), table)


def test_image_without_a_lit_pixel_measures_zero() -> None:
    images = np.zeros((2, 16, 16, 3), np.uint8)
    images[1, 4:12, 4:12] = 200
    rows = measure_each(images)
    assert (rows[0] == 0).all()
    assert rows[1][0] == 0.25
    assert (measure_each(images[:1]) == 0).all()


def test_area_alone_on_real_images(cnmc: Path, artifacts: Path) -> None:
    table = index_images(cnmc / "224")
    areas = PixelStore.open(table, cnmc / "224", Frame(64), artifacts, "raise").areas
    labels = table["label"].to_numpy()
    for source_fold, published in (("fold_0", 0.84), ("fold_1", 0.87)):
        chosen = (table["source_fold"] == source_fold).to_numpy()
        assert roc_auc_score(labels[chosen], areas[chosen]) == pytest.approx(published, abs=0.01)


def table_of(count: int = 60) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(count, len(MEASURES))) * 0.05 + 0.2
    labels = (values[:, 0] + generator.normal(0, 0.03, count) > 0.19).astype(np.int64)
    return pd.DataFrame(values, columns=list(MEASURES)), labels


def test_majority_baseline_is_the_training_share() -> None:
    table, _ = table_of(8)
    score = BASELINES["majority"].fitted(table, np.array([1, 1, 1, 0, 1, 1, 1, 0]))
    assert score(table).tolist() == [0.75] * 8


@pytest.mark.parametrize(("name", "columns"), [("area", ["area"]), ("morphology", [*MEASURES])])
def test_baseline_is_a_standardized_logistic_regression(name: str, columns: list[str]) -> None:
    table, labels = table_of()
    train, test = table[:40], table[40:]
    values = train[columns].to_numpy()
    mean, std = values.mean(axis=0), values.std(axis=0)
    model = LogisticRegression(max_iter=1000).fit((values - mean) / std, labels[:40])
    expected = model.predict_proba((test[columns].to_numpy() - mean) / std)[:, 1]
    found = BASELINES[name].fitted(train, labels[:40])(test)
    assert found.tolist() == pytest.approx(expected.tolist())
    assert roc_auc_score(labels[40:], found) > 0.7


def rectangle(high: int, wide: int, color: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    image = np.zeros((1, 40, 40, 3), np.uint8)
    image[0, 5 : 5 + high, 5 : 5 + wide] = color
    return image


def test_measures_of_a_rectangle_by_hand() -> None:
    """Pixel centers of 8 by 16 vary by 63 / 12 and 255 / 12; two specks of 2 and 4 pixels."""
    image = rectangle(8, 16, (200, 100, 50))
    image[0, 30, 30:32] = 255
    image[0, 34:36, 34:36] = 255
    found = dict(zip(MEASURES, measure_each(image)[0], strict=True))
    assert found["area"] == pytest.approx(128 / 1600)
    assert found["eccentricity"] == pytest.approx(math.sqrt(1 - 63 / 255))
    assert found["solidity"] == pytest.approx(1)
    assert [found[name] for name in ("red", "green", "blue")] == pytest.approx([200, 100, 50])
    assert found["texture"] == pytest.approx(0)
    assert found["specks"] == pytest.approx(6 / 134)


def test_texture_is_measured_two_pixels_from_the_border() -> None:
    """One pixel brighter by 90 (gray by 30) inside: Laplacian -4, and 1 at its four neighbors."""
    image = rectangle(12, 12, (60, 60, 60))
    image[0, 10, 10] = 150
    found = measure_each(image)[0][MEASURES.index("texture")]
    gray = np.zeros(8 * 8)
    gray[:5] = [-4 * 90, 90, 90, 90, 90]
    assert found == pytest.approx(gray.std())
    on_rim = rectangle(12, 12, (60, 60, 60))
    on_rim[0, 6, 10] = 150  # one pixel inside the edge
    on_edge = measure_each(on_rim)[0][MEASURES.index("texture")]
    # Of its Laplacian only the neighbor below reaches the core.
    below = np.zeros(8 * 8)
    below[0] = 90
    assert on_edge == pytest.approx(below.std())


def test_empty_and_tiny_cells_are_measured() -> None:
    images = np.zeros((3, 16, 16, 3), np.uint8)
    images[1, 4, 4:9] = 200
    images[2, 4, 4] = 200
    found = measure_each(images)
    assert found[0].tolist() == [0] * len(MEASURES)
    assert np.isfinite(found).all()
    assert set(morphology_distance(found[:1], found).values()) == {None}
    # Empty images are left out.
    assert morphology_distance(found, found[1:])["mean"] == 0


def test_features_are_in_standard_deviations_of_the_given_images() -> None:
    given, new = cells(200, 0), cells(20, 1)
    features = MorphologyExtractor(given)(new)
    values = measure_each(given)
    spread = values.std(axis=0)
    assert spread[-1] == 0  # drawn cells have no specks
    spread[-1] = 0.01
    expected = (measure_each(new) - values.mean(axis=0)) / spread
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
    real = measure_each(cells(200, 0))
    found = morphology_distance(real + 2 * real.std(axis=0), real)
    assert found["area"] == pytest.approx(2)
    assert set(morphology_distance(real, real).values()) == {0}
    apart = np.tile(np.array([[2.0], [6.0]]), (1, len(MEASURES)))
    assert morphology_distance(np.full_like(apart, 8.0), apart)["mean"] == pytest.approx(2)
