from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from leuk.data.datamodule import CNMCDataModule
from leuk.data.rules import Folds
from leuk.metrics.baselines import BASELINES, MEASURES, Baseline, measure, measure_each
from leuk.runs import evaluate as measures_module
from leuk.runs.evaluate import measure_images


def test_majority_baseline_is_constant() -> None:
    score = BASELINES["majority"].fitted(pd.DataFrame(index=range(3)), np.array([1, 1, 0]))
    np.testing.assert_allclose(score(pd.DataFrame(index=range(5))), np.full(5, 2 / 3))


@pytest.mark.parametrize("sign", [1, -1])
def test_area_baseline_learns_its_direction(sign: int) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 2
    table = pd.DataFrame({"area": 0.2 + sign * 0.05 * labels + generator.normal(0, 0.03, 200)})
    scores = BASELINES["area"].fitted(table, labels)(table)
    assert roc_auc_score(labels, scores) > 0.8


def test_measures_are_standardized_on_training_images() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 2
    table = pd.DataFrame(
        {
            "red": 150 + 20 * labels + generator.normal(0, 10, 400),
            "area": 0.2 + generator.normal(0, 1e-3, 400),
        }
    )
    baseline = Baseline(("red", "area"))
    scores = baseline.fitted(table, labels)(table)
    other_unit = table.assign(red=table["red"] / 255)
    np.testing.assert_allclose(baseline.fitted(other_unit, labels)(other_unit), scores, atol=1e-4)
    # The score of an image does not depend on the other images.
    np.testing.assert_allclose(baseline.fitted(table, labels)(table[:1]), scores[:1])


def test_morphology_baseline_uses_more_than_area() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 2
    table = pd.DataFrame({name: generator.normal(size=300) for name in MEASURES})
    table["texture"] += 2 * labels
    areas = {
        name: roc_auc_score(labels, BASELINES[name].fitted(table, labels)(table))
        for name in ("area", "morphology")
    }
    assert areas["morphology"] > 0.85 > areas["area"]


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
    expected = pd.DataFrame(measure(np.asarray(data.dataset.data[:5])).values, columns=MEASURES)
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


def test_area_alone_on_real_images(cnmc: object, artifacts: object) -> None:
    from leuk.data.layouts import CNMC

    data = CNMC(f"{cnmc}/224", resolution=64, cache=str(artifacts))
    areas, labels = data.store.areas, np.array(data.targets)
    for source_fold, published in (("fold_0", 0.84), ("fold_1", 0.87)):
        chosen = (data.index["source_fold"] == source_fold).to_numpy()
        assert roc_auc_score(labels[chosen], areas[chosen]) == pytest.approx(published, abs=0.01)
