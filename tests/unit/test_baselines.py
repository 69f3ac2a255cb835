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
from leuk.metrics.baselines import MEASURES, fit_baseline, measure_each
from leuk.metrics.synthetic.distances import morphology_distance
from leuk.metrics.synthetic.features import MorphologyExtractor
from leuk.runs import evaluate as measures_module
from leuk.runs.evaluate import measure_images


def test_every_image_is_measured_once(
    phantom: Path, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds = Folds(train=["fold_0"], val=0.3, test=["fold_1"])
    data = CNMCDataModule(str(phantom), folds, resolution=32, cache=str(artifacts))
    data.setup()
    data.cache = tmp_path
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
    score = fit_baseline("majority", table, np.array([1, 1, 1, 0, 1, 1, 1, 0]))
    assert score(table).tolist() == [0.75] * 8


@pytest.mark.parametrize(("name", "columns"), [("area", ["area"]), ("morphology", [*MEASURES])])
def test_baseline_is_a_standardized_logistic_regression(name: str, columns: list[str]) -> None:
    table, labels = table_of()
    train, test = table[:40], table[40:]
    values = train[columns].to_numpy()
    mean, std = values.mean(axis=0), values.std(axis=0)
    model = LogisticRegression(max_iter=1000).fit((values - mean) / std, labels[:40])
    expected = model.predict_proba((test[columns].to_numpy() - mean) / std)[:, 1]
    found = fit_baseline(name, train, labels[:40])(test)
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
    for row, expected in ((10, [-4 * 90, 90, 90, 90, 90]), (6, [90])):
        image = rectangle(12, 12, (60, 60, 60))
        image[0, row, 10] = 150  # of row 6, on the rim, only the neighbor below is in the core
        laplacian = np.zeros(8 * 8)
        laplacian[: len(expected)] = expected
        texture = measure_each(image)[0][MEASURES.index("texture")]
        assert texture == pytest.approx(laplacian.std())


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
    """Specks, of which drawn cells have none, in hundredths: a stray pixel does not outweigh."""
    given, new = cells(60, 0), cells(10, 1)
    given[0, 0, 0] = 30
    extractor, values = MorphologyExtractor(given), measure_each(given)
    spread = values.std(axis=0)
    assert spread[-1] < 0.01
    spread[-1] = 0.01
    expected = (measure_each(new) - values.mean(axis=0)) / spread
    features = extractor(new).pooled
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    new[:, 0, 0] = 30
    assert np.abs(extractor(new).pooled - features).max() < 1


def test_morphology_distance_is_in_standard_deviations() -> None:
    real = measure_each(cells(60, 0))
    found = morphology_distance(real + 2 * real.std(axis=0), real)
    assert found["area"] == pytest.approx(2)
    assert set(morphology_distance(real, real).values()) == {0}
    apart = np.tile(np.array([[2.0], [6.0]]), (1, len(MEASURES)))
    assert morphology_distance(np.full_like(apart, 8.0), apart)["mean"] == pytest.approx(2)
