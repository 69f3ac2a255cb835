"""Results of explanation checks: tables, intervals, excluded images, refused arguments."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from checking import CELLS, CONTROLS, QUICK, called, case, checked, measure
from explained import REVERSED, SIDE, TRUTH, FunctionExplainer, Linear, linear, some_cells
from omegaconf import OmegaConf
from scipy.integrate import trapezoid
from torch import Tensor

from leuk.classifiers.cnn import CNN
from leuk.config.targets import instantiate
from leuk.data.labels import Label
from leuk.errors import ConfigError
from leuk.explain.base import Attribution, signs
from leuk.explain.gradcam import GradCAM
from leuk.explain.quality.checks import (
    CheckSettings,
    Mean,
    check,
    passes_randomization,
    patient_mean,
    save_checks,
)
from leuk.explain.quality.faithfulness import curves

images = pytest.fixture(lambda: some_cells(CELLS))
model = pytest.fixture(lambda: linear().eval())
UNIT = (0.0, 1.0)


def test_images_of_a_subject_count_as_one_observation() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 12)
    subjects = np.array([f"S{i // 2}" for i in range(12)])
    once = patient_mean(values, subjects)
    assert (once.images, once.subjects) == (12, 6)
    assert once.low < once.value < once.high
    more = np.concatenate([subjects, subjects[:2], subjects[:2]])
    doubled = patient_mean(np.concatenate([values, values[:2], values[:2]]), more)
    assert doubled[:3] == pytest.approx(once[:3])
    apart = patient_mean(np.repeat(values, 100), np.arange(1200))
    assert apart.high - apart.low < (once.high - once.low) / 3
    signed = patient_mean(np.array([-1.0, -3.0, 4.0]), np.array(["a", "a", "b"]))
    assert signed.value == pytest.approx(1.0)  # of -2 and 4


def test_intervals_respect_bounds_and_need_two_subjects() -> None:
    values, subjects = np.array([0.97, 0.999, 0.9, np.nan]), np.array(["a", "b", "c", "d"])
    bounded = patient_mean(values, subjects, UNIT)
    assert bounded.value == pytest.approx(np.nanmean(values))
    assert (bounded.images, bounded.subjects) == (3, 3)
    assert 0 < bounded.low < bounded.value < bounded.high < 1
    assert patient_mean(values, subjects).high > 1
    one = patient_mean(np.array([0.1, 0.3]), np.array(["a", "a"]))
    assert one.value == pytest.approx(0.2)
    assert np.isnan([one.low, one.high]).all()
    none = patient_mean(np.full(4, np.nan), subjects)
    assert np.isnan(none.value)
    assert (none.images, none.subjects) == (0, 0)


@pytest.mark.parametrize(
    ("values", "subjects", "verdict"),
    [
        ([0.1, 0.15, 0.2, 0.1], "abcd", True),
        ([0.9, 0.95, 0.8, 0.9], "abcd", False),
        ([0.1, 0.9, 0.2, 0.6], "abcd", None),  # the mean, 0.45, would pass by itself
        ([0.1, np.nan, np.nan, np.nan], "abcd", None),
        ([np.nan] * 4, "abcd", None),
        ([0.1] * 20 + [0.9], "a" * 20 + "b", None),
        ([0.1] * 20 + [0.9], "abcdefghijklmnopqrstu", True),
    ],
)
def test_randomization_is_decided_by_the_interval_over_patients(
    values: list[float], subjects: str, verdict: bool | None
) -> None:
    found = patient_mean(np.array(values), np.array(list(subjects)), UNIT)
    assert passes_randomization(found) is verdict
    # A map that shares half the ranks has not changed.
    limits = [(0.2, 0.49, True), (0.2, 0.5, None), (0.5, 0.6, False)]
    assert all(passes_randomization(Mean(0.5, low, up, 8, 4)) is it for low, up, it in limits)


def test_repeated_explanations_have_intervals(model: Linear, images: Tensor) -> None:
    few = CheckSettings(**{**vars(QUICK), "sensitivity_images": 4, "randomized_images": 6})
    found = checked(model, images, TRUTH, settings=few)
    sensitivity = measure(found, "sensitivity").loc["truth"]
    assert (sensitivity["images"], sensitivity["subjects"]) == (4, 2)
    assert sensitivity["low"] < sensitivity["value"] < sensitivity["high"]
    similarity = measure(found, "randomized_similarity")
    assert (similarity.loc["truth", "images"], similarity.loc["truth", "subjects"]) == (6, 3)
    assert 0 <= similarity.loc["truth", "low"] < similarity.loc["truth", "high"] < 0.5
    of_images = found.per_image[found.per_image["method"] == "truth"]
    larger = of_images[["randomized_spearman", "randomized_absolute"]].max(axis=1)
    np.testing.assert_allclose(of_images["randomized_similarity"], larger)
    verdicts = found.methods.set_index("method")["passes_randomization"]
    assert verdicts["truth"]
    assert not verdicts[CONTROLS].any()


def test_config_repeats_enough_explanations() -> None:
    path = Path(__file__).parents[2] / "conf/checks/full.yaml"
    settings = instantiate(OmegaConf.load(path))
    assert settings == CheckSettings(batch_size=128)
    assert (settings.sensitivity_images, settings.randomized_images) == (24, 24)


def test_degenerate_maps_are_counted_and_excluded(
    model: Linear, images: Tensor, tmp_path: Path
) -> None:
    def broken(classifier: Linear, seen: Tensor) -> Tensor:
        maps = classifier.truth(seen)
        maps[0] = 0.0
        maps[1, 0, 0] = torch.nan
        return maps

    found = checked(
        model,
        images,
        TRUTH,
        FunctionExplainer("broken", broken),
        FunctionExplainer("flat", lambda _, seen: seen[:, 0] * 0),
    )
    lines = found.methods.set_index("method")
    assert lines["degenerate"][["truth", "broken", "flat", "random"]].tolist() == [0, 2, CELLS, 0]
    assert lines.loc["flat", "passes_randomization"] is None
    deletion = measure(found, "deletion_black")
    assert deletion["images"][["truth", "broken", "flat"]].tolist() == [CELLS, CELLS - 2, 0]
    assert deletion["subjects"][["truth", "broken", "flat"]].tolist() == [3, 2, 0]
    assert np.isnan(deletion.loc["flat", "value"])
    rows = found.per_image[found.per_image["method"] == "broken"].reset_index(drop=True)
    truth = found.per_image[found.per_image["method"] == "truth"].reset_index(drop=True)
    assert rows["infidelity"].isna().tolist() == [True, True, *[False] * (CELLS - 2)]
    pd.testing.assert_series_equal(rows["deletion_blur"][2:], truth["deletion_blur"][2:])
    assert np.isnan(found.agreement.loc["flat", "truth"])
    assert found.agreement.loc["broken", "truth"] == pytest.approx(1)
    names = {"truth": "truth", "broken": "broken", "flat": "flat"}
    own, of_all = save_checks(tmp_path, found, np.arange(CELLS), names, "model")
    json.dumps([own, of_all], allow_nan=False)
    assert own["flat"] == {"measures": {}, "passes_randomization": None}
    assert of_all["agreement"]["flat"]["truth"] is None
    images_ = pd.read_csv(tmp_path / "measured_images.csv")
    assert len(images_) == (3 + len(CONTROLS)) * CELLS


def test_black_images_are_excluded(model: Linear, images: Tensor) -> None:
    images[3] = 0
    found = checked(model, images, TRUTH)
    assert measure(found, "deletion_black").loc["random", "images"] == CELLS - 1
    assert measure(found, "positive_cell_ratio").loc["center", "images"] == CELLS - 1


def test_tables_contain_methods_and_controls(images: Tensor) -> None:
    torch.manual_seed(0)
    cnn = CNN(resolution=32, widths=(4, 8, 8), hidden=8)
    stable = torch.rand(CELLS)
    found = GradCAM().attribute(cnn, images, Label.ALL, images)
    found = Attribution(found.maps, "pixel", 3.0, {"stability": stable})
    subjects = np.array(["a", "b", "a", "b", "c", "c"])
    predicted = torch.tensor([0, 1] * 3)
    arguments = ({"cam": GradCAM()}, {"cam": found}, images, images, subjects, predicted)
    with torch.inference_mode():  # as in Lightning's hooks
        inside = images + 0
        table = check(cnn, *arguments[:2], inside, *arguments[3:], QUICK)
    methods = ["cam", *CONTROLS]
    assert table.methods["method"].tolist() == methods
    assert table.methods["control"].tolist() == [False] + [True] * 4
    assert table.methods["seconds_per_image"][0] == pytest.approx(0.5)
    assert table.agreement.index.tolist() == methods
    shape = (len(methods), 2 * 2 * (QUICK.steps + 1))
    assert table.curves.groupby("method").size().tolist() == [shape[1]] * shape[0]
    assert sorted(table.randomization["stage"].unique()) == [1, 2, 3, 4]
    own = measure(table, "stability")
    assert own.index.tolist() == ["cam"]
    assert own.loc["cam", "value"] == pytest.approx(
        np.mean([stable[subjects == who].mean() for who in "abc"])
    )
    again = check(cnn, *arguments, QUICK)
    pd.testing.assert_frame_equal(table.measures, again.measures)
    slow = CheckSettings(**{**vars(QUICK), "batch_size": 5})
    other = check(cnn, *arguments, slow).measures
    pd.testing.assert_frame_equal(table.measures, other, rtol=1e-3, atol=1e-5)


def test_maps_are_for_the_predicted_class(model: Linear, images: Tensor) -> None:
    table = checked(model, images, TRUTH).per_image
    rows = table[table["method"] == "truth"]
    decided = called(model, images)
    assert 0 < int(decided.sum()) < CELLS
    turned = model.truth(images) * signs(decided, CELLS)[:, None, None]
    toward = curves(case(model, images, decided), 0 * images, turned, steps=QUICK.steps)
    areas = trapezoid(toward.deletion, toward.shares, axis=1)
    np.testing.assert_allclose(rows["deletion_black"], areas, atol=1e-6)


def test_checks_use_the_predicted_class_and_black_squares(model: Linear, images: Tensor) -> None:
    brightness = FunctionExplainer("brightness", lambda _, seen: seen.mean(dim=1))
    settings = CheckSettings(
        steps=4, removals=8, draws=50, sensitivity_images=0, randomized_images=6
    )
    found = checked(model, images, TRUTH, REVERSED, brightness, settings=settings)
    # The true map of a linear model predicts the effect of black squares exactly.
    assert measure(found, "infidelity").loc["truth", "value"] < 1e-6
    assert measure(found, "infidelity_raw").loc["truth", "value"] < 1e-6
    # A map that ignores the weights does not change, whichever class is predicted.
    similar = measure(found, "randomized_ssim").loc["brightness", "value"]
    assert similar == pytest.approx(1, abs=1e-5)
    gain = measure(found, "insertion_minus_deletion_black").loc["reversed"]
    assert -1 < gain["low"] < gain["value"] < gain["high"] < 0


def test_randomization_measure_comes_from_the_last_stage() -> None:
    torch.manual_seed(0)
    cnn = CNN(resolution=SIDE, widths=(4, 8, 8), hidden=8).eval()
    settings = CheckSettings(
        steps=2, removals=2, draws=50, sensitivity_images=0, randomized_images=4, stages=3
    )
    found = checked(cnn, some_cells(4), GradCAM(), settings=settings)
    stages = found.randomization[found.randomization["method"] == "gradcam"]
    for name in ("spearman", "absolute", "ssim"):
        value = measure(found, f"randomized_{name}").loc["gradcam", "value"]
        assert value == pytest.approx(stages.iloc[-1][name])
        assert value != pytest.approx(stages.iloc[0][name])


def test_zero_images_skip_repeated_explanations(model: Linear, images: Tensor) -> None:
    sizes: list[int] = []

    def counted(classifier: Linear, seen: Tensor) -> Tensor:
        sizes.append(len(seen))
        return classifier.truth(seen)

    none = CheckSettings(steps=2, removals=2, sensitivity_images=0, randomized_images=0, draws=50)
    found = checked(model, images, FunctionExplainer("counted", counted), settings=none)
    assert sizes == [CELLS]
    assert found.randomization.empty
    assert "sensitivity" not in set(found.measures["measure"])
    assert found.methods["passes_randomization"].isna().all()


def test_methods_with_the_name_of_a_control_are_refused(model: Linear, images: Tensor) -> None:
    with pytest.raises(ConfigError, match="explain=edges: a control of the checks has this name"):
        checked(model, images, FunctionExplainer("edges", lambda _, seen: seen[:, 0]))
