"""Use of the stages in a run: fitting, choices, limits and tests each have their own images."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from explained import Linear
from omegaconf import DictConfig, OmegaConf
from sklearn.metrics import roc_auc_score

from leuk.classifiers.base import Predictions
from leuk.classifiers.optim import Optim
from leuk.config.preflight import CommandLine, compose_runs
from leuk.config.schema import register
from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.data.rules import Folds, Thesis
from leuk.errors import DataError, StoreError, TrainingError
from leuk.metrics.area import cell_areas
from leuk.metrics.calibration import apply_temperature, fit_temperature
from leuk.metrics.classification import all_metrics
from leuk.runs import gan as synthesis
from leuk.runs import train as train_module
from leuk.runs.classifier import new_classifier
from leuk.runs.evaluate import (
    Scorer,
    assess_area,
    assess_baselines,
    baseline_scores,
    measure_images,
    sample_of,
)
from leuk.runs.finished import FinishedRun
from leuk.runs.gan import (
    HELD_OUT,
    Synthetic,
    add_images,
    class_weights,
    evaluate_class,
    gan_classes,
    gan_key,
    gan_rows,
    images_to_add,
    limit_epochs,
    real_images,
    repeated_rows,
    synthesize,
)
from leuk.runs.predict import load_familiarity
from leuk.runs.resolvers import register_resolvers
from leuk.runs.run import run_id_of, settings_of, uses_gan
from leuk.runs.trainer import last_readable, read_checkpoint

CPU = torch.device("cpu")


def config(*overrides: str) -> DictConfig:
    register()
    register_resolvers()
    (cfg,) = compose_runs("train", CommandLine.read("train", overrides))
    return cfg


def opened(phantom: Path, artifacts: Path) -> CNMCDataModule:
    rule = Folds(train=["fold_0"], val=0.3, test=["fold_1"])
    data = CNMCDataModule(str(phantom), rule, resolution=32, cache=str(artifacts))
    data.setup()
    return data


@pytest.fixture(scope="module")
def data(phantom: Path, artifacts: Path) -> CNMCDataModule:
    return opened(phantom, artifacts)


def swap_labels(data: CNMCDataModule, stage: str) -> None:
    """Swap the labels of a stage."""
    rows = getattr(data.split, stage)
    labels = data.dataset.index["label"].to_numpy().copy()
    labels[rows] = 1 - labels[rows]
    data.dataset.index = data.dataset.index.assign(label=labels)


# Baselines


@pytest.mark.parametrize(("stage", "matters"), [("train", True), ("val", False), ("test", False)])
def test_baselines_are_fitted_on_training_images_only(
    stage: str, matters: bool, phantom: Path, artifacts: Path
) -> None:
    data = opened(phantom, artifacts)
    before = baseline_scores(data, measure_images(data))
    swap_labels(data, stage)
    after = baseline_scores(data, measure_images(data))
    for name in ("majority", "area", "morphology"):
        same = np.allclose(before[name], after[name])
        assert same is not matters or name == "majority", name


def test_the_area_is_that_of_the_published_image(data: CNMCDataModule) -> None:
    table = measure_images(data)
    np.testing.assert_allclose(table["area"], data.dataset.store.areas)
    assert not np.allclose(
        table["area"], cell_areas(data.bank.gather(torch.arange(8), CPU)["images"])[0]
    )


def test_thresholds_and_temperature_of_baselines_are_from_validation(
    data: CNMCDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    cuts = {"default": 0.5, "youden": 0.6, "sensitivity95": 0.4}

    def choose(scores: Any, labels: Any, *patients: Any) -> dict[str, float]:
        given.append((scores.tolist(), labels.tolist()))
        return cuts

    monkeypatch.setattr("leuk.runs.evaluate.choose_thresholds", choose)
    scores = baseline_scores(data, measure_images(data))
    found = assess_baselines(data, scores)
    val, test = data.stage("val"), data.stage("test")
    for name in ("area", "morphology"):
        chosen = scores[name][val.index].to_numpy(), val["label"].to_numpy()
        assert (chosen[0].tolist(), chosen[1].tolist()) in given
        tested, labels = scores[name][test.index].to_numpy(), test["label"].to_numpy()
        calibrated = apply_temperature(tested, fit_temperature(*chosen))
        expected = all_metrics(tested, labels, cuts, calibrated)
        for metric in ("auroc", "brier_calibrated", "sensitivity@youden", "specificity@youden"):
            assert found[name][metric]["value"] == pytest.approx(expected[metric]), (name, metric)


def test_predictions_are_joined_with_linked_patients(phantom: Path, artifacts: Path) -> None:
    data = opened(phantom, artifacts)
    patients = [f"linked{row % 7}" for row in range(len(data.dataset.index))]
    data.dataset.index = data.dataset.index.assign(patient=patients)
    rows = torch.tensor(data.stage("test").index.to_numpy())
    labels = data.bank.labels[rows]
    sample = sample_of(data, Predictions(rows, labels * 0.5 + 0.2, labels))
    assert sample.subjects.tolist() == [f"linked{row % 7}" for row in rows.tolist()]


def test_baselines_are_evaluated_with_linked_patients(
    phantom: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = opened(phantom, artifacts)
    linked = [f"linked{row % 7}" for row in range(len(data.dataset.index))]
    data.dataset.index = data.dataset.index.assign(patient=linked)
    chosen: list[Any] = []
    tested: list[Any] = []

    def choose(scores: Any, labels: Any, patients: Any) -> dict[str, float]:
        chosen.append(patients.tolist())
        return {"default": 0.5}

    def compute_metrics(sample: Any, thresholds: Any) -> dict[str, Any]:
        tested.append(sample.subjects.tolist())
        return {}

    monkeypatch.setattr("leuk.runs.evaluate.choose_thresholds", choose)
    monkeypatch.setattr("leuk.runs.evaluate.compute_metrics", compute_metrics)
    assess_baselines(data, baseline_scores(data, measure_images(data)))
    for stage, found in (("val", chosen), ("test", tested)):
        expected = [linked[row] for row in data.stage(stage).index]
        assert found == [expected] * 3


def test_cells_are_scaled_to_the_mean_area_of_training_cells(data: CNMCDataModule) -> None:
    train, test = (torch.tensor(data.stage(stage).index.to_numpy()) for stage in ("train", "test"))
    labels = data.bank.labels[test]
    predictions = Predictions(test, labels.double() * 0.2 + 0.4, labels)
    # Score by the red channel, so that the scores at one size differ from the predictions.
    found = assess_area(
        data, predictions, lambda images: images[:, 0].mean(dim=(1, 2)).double().numpy(), CPU
    )
    mean = cell_areas(data.bank.gather(train, CPU)["images"]).mean()
    assert found["one_size"]["target_area"] == pytest.approx(float(mean), rel=1e-6)
    assert found["one_size"]["metrics"]["auroc"]["value"] < 1
    areas = data.dataset.store.areas[test.numpy()]
    assert found["one_size"]["area_auroc_before"] == pytest.approx(roc_auc_score(labels, areas))
    assert found["within_bins"]["value"] == 1
    assert found["area_within_bins"] < 1


# Novelty


def test_the_limit_of_novelty_is_from_validation_images(tmp_path: Path) -> None:
    """Features of training images point one way; validation is up to 0.3, test 1 radian off."""
    angles = {"train": np.zeros(12), "val": np.linspace(0.2, 0.3, 101), "test": np.ones(9)}
    ends = np.cumsum([0, *map(len, angles.values())])
    stages = {
        stage: pd.DataFrame({"patient": "a"}, index=range(start, end))
        for stage, start, end in zip(angles, ends[:-1], ends[1:], strict=True)
    }
    pixels = np.zeros((int(ends[-1]), 20, 20, 3), np.uint8)
    for row in range(len(pixels)):
        pixels[row, 0, 0] = (row, 200, 0)  # the red value identifies the row
        pixels[row, 5:15, 5 : 7 + row % 12] = 99
    directions = np.concatenate([*angles.values()])

    def predict(images: npt.NDArray[np.uint8]) -> Any:
        angle = directions[images[:, 0, 0, 0]]
        return SimpleNamespace(features=np.stack([np.cos(angle), np.sin(angle)], 1).astype("f4"))

    data = SimpleNamespace(stage=stages.__getitem__, dataset=SimpleNamespace(data=pixels))
    finished: Any = SimpleNamespace(folder=tmp_path, weights_digest="w", data=lambda root: data)
    scorer: Any = SimpleNamespace(outputs=predict)
    found = load_familiarity(finished, scorer, None)
    # The chord of the 99th percentile of 101 angles.
    assert found.images.limit == pytest.approx(2 * np.sin(0.29949 / 2), rel=1e-5)
    assert len(found.images.features) == 12
    assert found.smallest == pytest.approx(10 * 2 / 400)
    # If the farthest image is of a second patient, it has half of the weight.
    stages["val"].loc[stages["val"].index[-1], "patient"] = "b"
    (tmp_path / "familiar.npz").unlink()
    again = load_familiarity(finished, scorer, None)
    assert again.images.limit == pytest.approx(2 * np.sin(0.3 / 2), rel=1e-5)


# Decision rule


def finished_run(folder: Path, table: pd.DataFrame) -> FinishedRun:
    table.to_csv(folder / "predictions.csv", index=False)
    chosen = {"default": 0.5, "youden": 0.7, "sensitivity95": 0.3}
    record = SimpleNamespace(
        metrics={"thresholds": {name: {"value": value} for name, value in chosen.items()}},
        calibration={"temperature": 2.0},
        predictions="predictions.csv",
    )
    return FinishedRun(folder, record, OmegaConf.create())  # type: ignore[arg-type]


def scored(seed: int, shift: float) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    label = np.repeat([0, 1], 200)
    logit = generator.normal(2.0 * (label - 0.5) * 2 + shift, 1.2)
    score = 1 / (1 + np.exp(-logit))
    names = [f"p{number % 40}" for number in range(400)]
    table = pd.DataFrame({"label": label, "score": score, "subject": names, "patient": names})
    return table.assign(path=[f"{seed}-{row}" for row in range(400)])


def test_the_referral_band_is_chosen_on_validation_images(tmp_path: Path) -> None:
    def band(val: int, test: int) -> object:
        tables = [scored(val, 0.0).assign(stage="val"), scored(test, 0.4).assign(stage="test")]
        folder = tmp_path / f"{val}-{test}"
        folder.mkdir()
        return finished_run(folder, pd.concat(tables)).frozen("youden", 0.8).band

    first = band(0, 1)
    assert band(0, 2) == first
    assert band(3, 1) != first


def test_decisions_use_the_score_and_the_band_its_calibrated_form(tmp_path: Path) -> None:
    table = scored(0, 0.0).assign(stage="val")
    run = finished_run(tmp_path, pd.concat([table, scored(1, 0.0).assign(stage="test")]))
    for name, value in (("youden", 0.7), ("0.5", 0.5), ("sensitivity", 0.3)):
        frozen = run.frozen(name, 0.8)
        assert frozen.threshold == value
        scores = np.linspace(0.01, 0.99, 99)
        assert frozen.leukemic(scores).tolist() == (scores >= value).tolist()
        calibrated = apply_temperature(scores, 2.0)
        expected = frozen.band.refers(calibrated, scores >= value)
        assert frozen.refers(scores).tolist() == expected.tolist()
    assert frozen.calibrated_threshold == pytest.approx(
        float(apply_temperature(np.array([0.3]), 2.0)[0])
    )


# Evaluation


TRAINER: Any = SimpleNamespace(
    precision_plugin=SimpleNamespace(forward_context=nullcontext),
    strategy=SimpleNamespace(root_device=CPU),
)


class Corner(Linear):
    """Twice the log-odds of leukemia are the red value of the first pixel: views differ."""

    def __init__(self, views: Literal[1, 8]) -> None:
        weight = torch.zeros(3, 4, 4)
        weight[0, 0, 0] = 2.0
        super().__init__(weight)
        self.optim = Optim(test_views=views)


def test_pixels_and_images_have_the_scores_of_the_loaders() -> None:
    """Each of the eight views has one corner as its first pixel, and each corner is in two."""
    pixels = np.zeros((3, 4, 4, 3), np.uint8)
    pixels[:, 0, 0, 0] = (0, 51, 255)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    for views in (1, 8):
        scorer = Scorer(Corner(views).eval(), TRAINER, batch_size=2)
        found = scorer.outputs(pixels)
        logits = 2 * np.array([0.0, 0.2, 1.0]) * (1 if views == 1 else 0.25)
        assert found.scores == pytest.approx(1 / (1 + np.exp(-logits)))
        assert scorer.scores(images).tolist() == found.scores.tolist()
        assert found.features[:, 0] == pytest.approx([0.0, 0.4, 2.0])
        with torch.no_grad():
            expected = scorer.classifier.predict_logits(images).double().softmax(dim=1)[:, 1]
        assert found.scores.tolist() == expected.tolist()


def test_scores_that_are_not_finite_are_refused() -> None:
    classifier = Corner(1).eval()
    classifier.weight.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="no finite scores"):
        Scorer(classifier, TRAINER).scores(np.zeros((1, 4, 4, 3), np.uint8))


# Synthetic images


def labeled(hem: int, all_: int) -> Any:
    """A training stage whose rows begin at 100."""
    labels = np.repeat([int(Label.HEM), int(Label.ALL)], [hem, all_])
    rows = np.arange(100, 100 + len(labels))
    table = pd.DataFrame({"label": labels}, index=rows)
    return SimpleNamespace(stage={"train": table}.__getitem__, split=SimpleNamespace(train=rows))


def test_class_weights_by_hand() -> None:
    """Of 3 and 9 images: 12 / (2 * 3) and 12 / (2 * 9)."""
    assert class_weights(labeled(3, 9)) == pytest.approx([2.0, 2 / 3])


def test_added_images_balance_the_classes() -> None:
    cfg = OmegaConf.create({"augmentation": {"count": None, "classes": ["hem"]}, "seed": 0})
    assert images_to_add(cfg, labeled(3, 9)) == {Label.HEM: 6}
    assert images_to_add(cfg, labeled(9, 3)) == {}
    cfg.augmentation.count = 2
    cfg.augmentation.classes = ["all", "hem"]
    assert images_to_add(cfg, labeled(3, 9)) == {Label.HEM: 2, Label.ALL: 2}


def test_repeated_rows_are_healthy_training_rows_and_follow_the_seed() -> None:
    cfg = OmegaConf.create({"augmentation": {"count": 12, "classes": ["hem"]}, "seed": 0})
    found = repeated_rows(cfg, labeled(5, 9))[Label.HEM].tolist()
    assert set(found) == {100, 101, 102, 103, 104}
    assert sorted(found[:5]) == sorted(found[5:10]) == [100, 101, 102, 103, 104]
    orders = set()
    for seed in range(4):
        cfg.seed = seed
        orders.add(tuple(repeated_rows(cfg, labeled(5, 9))[Label.HEM].tolist()))
    assert len(orders) == 4


class Recorder:
    """A GAN that records its calls."""

    calls: list[tuple[str, int, int, int]]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sample(self, count: int, label: int, seed: int) -> npt.NDArray[np.uint8]:
        Recorder.calls.append((self.folder.name, count, int(label), seed))
        return np.full((count, 4, 4, 3), 10 * int(label) + seed, np.uint8)


@pytest.mark.parametrize(
    ("conditional", "gans"), [(False, ["hem", "all"]), (True, ["hem+all"] * 2)]
)
def test_each_class_is_sampled_from_its_own_gan_by_seed(
    conditional: bool, gans: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Recorder.calls = []
    form = SimpleNamespace(CONDITIONAL=conditional)
    monkeypatch.setattr(synthesis, "form_of", lambda cfg: form)
    monkeypatch.setattr(
        synthesis,
        "fitted_gan",
        lambda cfg, data, labels: tmp_path / "+".join(label.folder for label in labels),
    )
    monkeypatch.setattr(synthesis, "load_gan", lambda cfg, folder: Recorder(folder))
    settings = {"count": 3, "classes": ["hem", "all"]}
    for seed in (5, 6):
        cfg = OmegaConf.create({"augmentation": settings, "seed": seed, "outputs": str(tmp_path)})
        found = synthesize(cfg, labeled(3, 9))
        assert found is not None
        assert Recorder.calls[-2:] == [(gans[0], 3, 0, seed), (gans[1], 3, 1, seed)]
        assert set(found.of(Label.HEM).ravel().tolist()) == {seed}
        assert set(found.of(Label.ALL).ravel().tolist()) == {10 + seed}
        assert found.origin["label"].tolist() == [0, 0, 0, 1, 1, 1]
        assert found.origin["position"].tolist() == [0, 1, 2] * 2
    assert len(gan_classes(cfg, [Label.HEM])[Label.HEM]) == 1 + conditional


def test_synthetic_images_join_with_their_own_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = pd.DataFrame({"label": [0, 0, 1], "gan": "g", "seed": 0, "position": [0, 1, 0]})
    synthetic = Synthetic(np.zeros((3, 4, 4, 3), np.uint8), origin, tmp_path)
    monkeypatch.setattr(synthesis, "synthesize", lambda cfg, data: synthetic)
    monkeypatch.setattr(synthesis, "cached_quality", lambda cfg, data, synthetic: {})
    monkeypatch.setattr(synthesis, "uses_gan", lambda cfg: True)
    added: list[Any] = []
    data: Any = SimpleNamespace(add_synthetic=lambda *given: added.append(given))
    found = add_images(OmegaConf.create({"augmentation": {"name": "dcgan"}}), data)
    assert added[0][1].tolist() == [0, 0, 1]
    assert found.facts["synthetic"]["counts"] == {"hem": 2, "all": 1}
    assert [warning.kind for warning in found.warnings] == ["synthetic"]


def test_oversampling_repeats_rows_of_the_data() -> None:
    data = labeled(3, 9)
    repeated: list[Any] = []
    data.repeat = repeated.append
    settings = {"name": "oversample", "kind": "control", "count": None, "classes": ["hem"]}
    found = add_images(OmegaConf.create({"augmentation": settings, "seed": 0}), data)
    assert len(repeated[0]) == 6
    assert set(repeated[0].tolist()) == {100, 101, 102}
    assert found.facts["oversampled"] == {"hem": 6}


# Quality of synthetic images


@pytest.mark.parametrize("label", Label)
def test_synthetic_images_are_compared_with_held_out_ones(
    label: Label, data: CNMCDataModule
) -> None:
    found = real_images(data, label, HELD_OUT)
    for name, stage, own in (
        ("train", "train", True),
        ("train_other", "train", False),
        ("reference", "val", True),
        ("reference_other", "val", False),
    ):
        table = data.stage(stage)
        rows = table.index[(table["label"] == label) == own]
        np.testing.assert_array_equal(getattr(found, name), data.dataset.data[rows])


def test_measures_are_standardized_by_training_images(
    data: CNMCDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics of features are of training images, and each class is compared with its own."""
    seen: list[Any] = []

    def assess(synthetic: Any, real: Any, extractor: Any, seed: int, synthetic_other: Any) -> Any:
        seen.append((synthetic, real, extractor, seed, synthetic_other))
        raise StopIteration

    monkeypatch.setattr(synthesis, "assess_quality", assess)
    monkeypatch.setattr(synthesis, "FEWEST", 3)
    pixels = np.stack([np.full((32, 32, 3), 10 * (row < 12) + 50, np.uint8) for row in range(24)])
    origin = pd.DataFrame({"label": [0] * 12 + [1] * 12})
    synthetic = Synthetic(pixels, origin, tmp_path)
    with pytest.raises(StopIteration):
        synthesis.cached_quality(
            OmegaConf.create({"seed": 3, "outputs": str(tmp_path)}), data, synthetic
        )
    own, real, extractor, seed, other = seen[0]
    assert set(own.ravel().tolist()) == {60}
    assert set(other.ravel().tolist()) == {50}
    assert seed == 3
    assert extractor(real.train).pooled.mean(axis=0) == pytest.approx(np.zeros(8), abs=1e-4)
    with pytest.raises(StopIteration):
        evaluate_class(tmp_path, synthetic, Label.ALL, real, extractor, 0)
    assert set(seen[1][0].ravel().tolist()) == {50}


# GANs


def test_a_gan_is_trained_on_training_images_of_its_class(data: CNMCDataModule) -> None:
    cfg = config("augmentation=dcgan", "gan_fit.batch_size=4", "trainer=cpu")
    train = data.stage("train")
    for labels in ((Label.HEM,), (Label.ALL,), tuple(Label)):
        rows = train.index[train["label"].isin(labels)].to_numpy()
        assert gan_rows(cfg, data, labels).tolist() == rows.tolist()
    cfg.gan_fit.batch_size = len(train) + 1
    with pytest.raises(DataError, match=r"set gan_fit\.batch_size="):
        gan_rows(cfg, data, tuple(Label))


def test_the_key_of_a_gan_follows_seed_and_images() -> None:
    first = gan_key(config("trainer=cpu"), "one")
    other = gan_key(config("trainer=cpu", "seed=4"), "two")
    assert {name for name in first if first[name] != other[name]} == {"seed", "images"}


@pytest.mark.parametrize(("updates", "steps", "epochs"), [(21, 1, 3), (20, 1, 2), (21, 2, 2)])
def test_epochs_of_a_gan_cover_its_updates(updates: int, steps: int, epochs: int) -> None:
    """With ten batches per epoch."""
    fitting = SimpleNamespace(updates=updates, generator_steps=steps, adversary_steps=1)
    gan: Any = SimpleNamespace(fitting=fitting)
    loop = SimpleNamespace(max_epochs=99)
    trainer: Any = SimpleNamespace(max_epochs=99, fit_loop=loop)
    limit_epochs(trainer, gan, 10)
    assert loop.max_epochs == epochs


# Classifiers


def new(data: CNMCDataModule, *overrides: str) -> Any:
    cfg = config("data.resolution=32", *overrides)
    return new_classifier(cfg, data, "settings")


def test_class_weights_reach_the_classifier_only_by_its_augmentation(data: CNMCDataModule) -> None:
    counts = data.counts()["train"]
    total = counts["all"] + counts["hem"]
    expected = [total / (2 * counts["hem"]), total / (2 * counts["all"])]
    assert new(data, "augmentation=class_weights").class_weights.tolist() == pytest.approx(expected)
    assert new(data).class_weights.tolist() == [1, 1]


def test_a_classifier_is_standardized_by_training_images_if_set(
    data: CNMCDataModule,
) -> None:
    mean, std = data.channel_statistics()
    standardized = new(data, "fit.standardize=true")
    assert standardized.mean.flatten().tolist() == pytest.approx(mean)
    assert standardized.std.flatten().tolist() == pytest.approx(std)
    plain = new(data, "fit.standardize=false")
    assert plain.mean.flatten().tolist() == [0, 0, 0]
    assert plain.stamp == {"form": "CNN", "settings": "settings", "data": data.listing()}


def test_early_stopping_and_checkpoints_watch_validation() -> None:
    for recipe in ("small", "strong", "thesis"):
        cfg = config(f"recipe={recipe}")
        for name in ("early_stopping", "checkpoint"):
            watched = cfg.callbacks[name]
            if watched is not None:
                assert str(watched.monitor).startswith("val/"), (recipe, name)
                rises = "loss" not in watched.monitor
                assert watched.mode == ("max" if rises else "min"), (recipe, name)


def test_a_fit_resumes_from_its_newest_checkpoint_of_the_same_settings(tmp_path: Path) -> None:
    for epoch in (3, 12):
        values = {"epoch": epoch, "state_dict": {}, "stamp": {"form": "CNN", "settings": "a"}}
        torch.save(values, tmp_path / f"epoch={epoch:05d}.ckpt")
    found = last_readable(tmp_path)
    assert found is not None
    assert found.name == "epoch=00012.ckpt"
    read_checkpoint(found, {"form": "CNN", "settings": "a"})
    for stamp, message in (
        ({"settings": "b"}, "other settings"),
        ({"form": "ViT"}, "another model"),
    ):
        with pytest.raises(StoreError, match=message):
            read_checkpoint(found, stamp)


# Data of a run


@pytest.mark.parametrize("leaky", [True, False])
def test_a_record_names_the_data_and_what_leaks(
    leaky: bool, phantom: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = opened(phantom, artifacts)
    if leaky:
        rule = Thesis(train=["fold_0"], test=["fold_1"])
        data = CNMCDataModule(str(phantom), rule, resolution=32, cache=str(artifacts))
    monkeypatch.setattr(train_module, "instantiate", lambda node, **_: data)
    cfg = OmegaConf.create({key: {} for key in ("data", "split", "transforms")})
    opened_data = train_module.open_data(cfg, "name")
    assert opened_data.module is data
    assert opened_data.facts["fingerprint"] == data.dataset.store.fingerprint
    assert opened_data.facts["files"] == data.listing()
    assert opened_data.facts["counts"] == data.counts()
    leaks = [one.text for one in opened_data.warnings if one.kind == "leaky"]
    assert leaks == ([data.split.leaky] if leaky else [])


# Identity


def test_settings_of_a_run() -> None:
    plain = settings_of(config())
    assert settings_of(config("data.workers=2", "outputs=elsewhere", "gan.latent=7")) == plain
    one, two = (settings_of(config("data=cnmc", f"data.root={root}")) for root in ("a", "b"))
    assert one == two
    other = settings_of(config("seed=1", "data.resolution=96", "fit.epochs=3"))
    for keys in (["seed"], ["data", "resolution"], ["fit", "epochs"]):
        one, two = plain, other
        for key in keys:
            one, two = one[key], two[key]
        assert one != two, keys
    with_gan = settings_of(config("augmentation=dcgan"))
    assert settings_of(config("augmentation=dcgan", "gan.latent=7")) != with_gan
    assert settings_of(config("augmentation=dcgan", "gan_fit.sample_every=7")) == with_gan


def test_augmentations_with_a_gan() -> None:
    found = {
        name: uses_gan(config(f"augmentation={name}"))
        for name in ("none", "oversample", "class_weights", "dcgan", "wgan", "cgan")
    }
    assert [name for name, uses in found.items() if uses] == ["dcgan", "wgan", "cgan"]


def test_a_leaky_split_is_marked_in_the_name_of_a_run() -> None:
    for split, leaky in (("folds", False), ("thesis", True)):
        cfg = config(f"split={split}")
        assert run_id_of(cfg, cfg.hydra).leaky is leaky
