"""Use of the stages in a run: fitting, choices, limits and tests each have their own images."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from leuk.config.preflight import CommandLine, compose_runs
from leuk.config.schema import register
from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.data.rules import Folds, Thesis
from leuk.errors import DataError, StoreError
from leuk.metrics.calibration import apply_temperature
from leuk.runs import gan as synthesis
from leuk.runs import train as train_module
from leuk.runs.classifier import new_classifier
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
from leuk.runs.run import register_resolvers, run_id_of, settings_of
from leuk.runs.trainer import last_readable, read_checkpoint


@cache
def composed(*overrides: str) -> DictConfig:
    register()
    register_resolvers()
    (cfg,) = compose_runs("train", CommandLine.read("train", overrides))
    return cfg


def config(*overrides: str) -> DictConfig:
    return deepcopy(composed(*overrides))


@pytest.fixture(scope="module")
def data(phantom: Path, artifacts: Path) -> CNMCDataModule:
    rule = Folds(train=["fold_0"], val=0.3, test=["fold_1"])
    data = CNMCDataModule(str(phantom), rule, resolution=32, cache=str(artifacts))
    data.setup()
    return data


# Finished runs


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

    def features(images: npt.NDArray[np.uint8]) -> Any:
        angle = directions[images[:, 0, 0, 0]]
        return np.stack([np.cos(angle), np.sin(angle)], 1).astype("f4")

    data = SimpleNamespace(stage=stages.__getitem__, dataset=SimpleNamespace(data=pixels))
    finished: Any = SimpleNamespace(folder=tmp_path, weights_digest="w", data=lambda root: data)
    scorer: Any = SimpleNamespace(features=features)
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


def finished_run(folder: Path, val: int, test: int) -> FinishedRun:
    """A run with scores of its validation and test images from two seeds."""
    tables = []
    for stage, seed in (("val", val), ("test", test)):
        label = np.repeat([0, 1], 200)
        logit = np.random.default_rng(seed).normal(2.0 * (label - 0.5) * 2, 1.2)
        table = pd.DataFrame({"label": label, "score": 1 / (1 + np.exp(-logit))})
        tables.append(table.assign(stage=stage, patient=[f"p{n % 40}" for n in range(400)]))
    folder.mkdir()
    pd.concat(tables).to_csv(folder / "predictions.csv", index=False)
    chosen = {"default": 0.5, "youden": 0.7, "sensitivity95": 0.3}
    record: Any = SimpleNamespace(
        metrics={"thresholds": {name: {"value": value} for name, value in chosen.items()}},
        calibration={"temperature": 2.0},
        predictions="predictions.csv",
    )
    return FinishedRun(folder, record, OmegaConf.create())


def test_the_referral_band_is_chosen_on_validation_images(tmp_path: Path) -> None:
    first, other_test, other_val = (
        finished_run(tmp_path / f"{val}-{test}", val, test).frozen("youden", 0.8).band
        for val, test in ((0, 1), (0, 2), (3, 1))
    )
    assert other_test == first
    assert other_val != first


def test_decisions_use_the_score_and_the_band_its_calibrated_form(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", 0, 1)
    scores = np.linspace(0.01, 0.99, 99)
    calibrated = apply_temperature(scores, 2.0)
    for name, value in (("youden", 0.7), ("0.5", 0.5), ("sensitivity", 0.3)):
        frozen = run.frozen(name, 0.8)
        assert frozen.threshold == value
        assert frozen.leukemic(scores).tolist() == (scores >= value).tolist()
        expected = frozen.band.refers(calibrated, scores >= value)
        assert frozen.refers(scores).tolist() == expected.tolist()
    assert frozen.calibrated_threshold == pytest.approx(float(calibrated[29]))


# Added images


def labeled(hem: int, all_: int) -> Any:
    """A training stage whose rows begin at 100."""
    labels = np.repeat([int(Label.HEM), int(Label.ALL)], [hem, all_])
    rows = np.arange(100, 100 + len(labels))
    table = pd.DataFrame({"label": labels}, index=rows)
    return SimpleNamespace(stage={"train": table}.__getitem__, split=SimpleNamespace(train=rows))


def adding(count: int | None, *classes: str, seed: int = 0, **more: str) -> DictConfig:
    node = {"count": count, "classes": list(classes), **more}
    return OmegaConf.create({"augmentation": node, "seed": seed})


def test_added_images_balance_the_classes() -> None:
    """Weights of 3 and 9 images: 12 / (2 * 3) and 12 / (2 * 9)."""
    assert class_weights(labeled(3, 9)) == pytest.approx([2.0, 2 / 3])
    assert images_to_add(adding(None, "hem"), labeled(3, 9)) == {Label.HEM: 6}
    assert images_to_add(adding(None, "hem"), labeled(9, 3)) == {}
    both = {Label.HEM: 2, Label.ALL: 2}
    assert images_to_add(adding(2, "all", "hem"), labeled(3, 9)) == both


def test_repeated_rows_are_healthy_training_rows_and_follow_the_seed() -> None:
    orders = set()
    for seed in range(4):
        found = repeated_rows(adding(12, "hem", seed=seed), labeled(5, 9))[Label.HEM].tolist()
        assert len(found) == 12
        assert sorted(found[:5]) == sorted(found[5:10]) == [100, 101, 102, 103, 104]
        orders.add(tuple(found))
    assert len(orders) == 4
    data = labeled(3, 9)
    repeated: list[Any] = []
    data.repeat = repeated.append
    facts, _ = add_images(adding(None, "hem", name="oversample", kind="control"), data)
    assert set(repeated[0].tolist()) == {100, 101, 102}
    assert facts["oversampled"] == {"hem": 6}


@pytest.mark.parametrize(
    ("conditional", "gans"), [(False, ["hem", "all"]), (True, ["hem+all"] * 2)]
)
def test_each_class_is_sampled_from_its_own_gan_by_seed(
    conditional: bool, gans: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def load(cfg: DictConfig, folder: Path) -> Any:
        def sample(count: int, label: int, seed: int) -> npt.NDArray[np.uint8]:
            calls.append((folder.name, count, int(label), seed))
            return np.full((count, 4, 4, 3), 10 * int(label) + seed, np.uint8)

        return SimpleNamespace(sample=sample)

    def fitted(cfg: DictConfig, data: Any, labels: Any) -> Path:
        return tmp_path / "+".join(label.folder for label in labels)

    form = SimpleNamespace(CONDITIONAL=conditional)
    monkeypatch.setattr(synthesis, "form_of", lambda cfg: form)
    monkeypatch.setattr(synthesis, "fitted_gan", fitted)
    monkeypatch.setattr(synthesis, "load_gan", load)
    for seed in (5, 6):
        cfg = adding(3, "hem", "all", seed=seed)
        cfg.outputs = str(tmp_path)
        found = synthesize(cfg, labeled(3, 9))
        assert found is not None
        assert calls[-2:] == [(gans[0], 3, 0, seed), (gans[1], 3, 1, seed)]
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
    added: list[Any] = []
    data: Any = SimpleNamespace(add_synthetic=lambda *given: added.append(given))
    facts, warnings = add_images(adding(None, "hem", name="dcgan", kind="gan"), data)
    assert added[0][1].tolist() == [0, 0, 1]
    assert facts["synthetic"]["counts"] == {"hem": 2, "all": 1}
    assert [warning.kind for warning in warnings] == ["synthetic"]


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
    cfg = OmegaConf.create({"seed": 3, "outputs": str(tmp_path)})
    with pytest.raises(StopIteration):
        synthesis.cached_quality(cfg, data, synthetic)
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
    cfg = config("augmentation=dcgan")
    cfg.gan_fit.batch_size = 4
    train = data.stage("train")
    for labels in ((Label.HEM,), (Label.ALL,), tuple(Label)):
        rows = train.index[train["label"].isin(labels)].to_numpy()
        assert gan_rows(cfg, data, labels).tolist() == rows.tolist()
    cfg.gan_fit.batch_size = len(train) + 1
    with pytest.raises(DataError, match=r"set gan_fit\.batch_size="):
        gan_rows(cfg, data, tuple(Label))


def test_the_key_of_a_gan_follows_seed_and_images() -> None:
    cfg = config()
    first = gan_key(cfg, "one")
    cfg.seed = 4
    other = gan_key(cfg, "two")
    assert {name for name in first if first[name] != other[name]} == {"seed", "images"}
    OmegaConf.update(cfg, "trainer.limit_train_batches", 1, force_add=True)
    short = gan_key(cfg, "two")
    assert {name for name in short if short[name] != other[name]} == {"trainer"}


@pytest.mark.parametrize(("updates", "steps", "epochs"), [(21, 1, 3), (20, 1, 2), (21, 2, 2)])
def test_epochs_of_a_gan_cover_its_updates(updates: int, steps: int, epochs: int) -> None:
    """With ten batches per epoch."""
    fitting = SimpleNamespace(updates=updates, generator_steps=steps, adversary_steps=1)
    loop = SimpleNamespace(max_epochs=99)
    trainer: Any = SimpleNamespace(max_epochs=99, fit_loop=loop)
    limit_epochs(trainer, SimpleNamespace(fitting=fitting), 10)  # type: ignore[arg-type]
    assert loop.max_epochs == epochs


# Classifiers


def test_a_classifier_has_statistics_weights_and_stamp_of_its_training_images(
    data: CNMCDataModule,
) -> None:
    cfg = config()
    cfg.model.resolution = 32
    cfg.fit.standardize = False
    plain = new_classifier(cfg, data, "settings")
    assert plain.mean.flatten().tolist() == [0, 0, 0]
    assert plain.class_weights.tolist() == [1, 1]
    assert plain.stamp == {"form": "CNN", "settings": "settings", "data": data.listing()}
    cfg.fit.standardize = True
    cfg.augmentation.name = "class_weights"
    other = new_classifier(cfg, data, "settings")
    mean, std = data.channel_statistics()
    assert other.mean.flatten().tolist() == pytest.approx(mean)
    assert other.std.flatten().tolist() == pytest.approx(std)
    assert other.class_weights.tolist() == pytest.approx(class_weights(data))


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


# Data and identity of a run


@pytest.mark.parametrize("leaky", [True, False])
def test_a_record_names_the_data_and_what_leaks(
    leaky: bool, data: CNMCDataModule, phantom: Path, artifacts: Path, monkeypatch: Any
) -> None:
    if leaky:
        rule = Thesis(train=["fold_0"], test=["fold_1"])
        data = CNMCDataModule(str(phantom), rule, resolution=32, cache=str(artifacts))
    monkeypatch.setattr(train_module, "instantiate", lambda node, **_: data)
    cfg = OmegaConf.create({key: {} for key in ("data", "split", "transforms")})
    module, facts, warnings = train_module.open_data(cfg, "name")
    assert module is data
    assert facts["fingerprint"] == data.dataset.store.fingerprint
    assert facts["files"] == data.listing()
    assert facts["counts"] == data.counts()
    leaks = [one.text for one in warnings if one.kind == "leaky"]
    assert leaks == ([data.split.leaky] if leaky else [])


def test_settings_of_a_run() -> None:
    plain, with_gan = config(), config("augmentation=dcgan")

    def differ(cfg: DictConfig, key: str, value: object) -> bool:
        changed = deepcopy(cfg)
        OmegaConf.update(changed, key, value, force_add=True)
        return settings_of(changed) != settings_of(cfg)

    for key in ("data.workers", "data.root", "outputs", "gan.latent", "explain_images"):
        assert not differ(plain, key, 7), key
    for key in ("seed", "data.resolution", "fit.epochs"):
        assert differ(plain, key, 7), key
    assert differ(with_gan, "gan.latent", 7)
    assert not differ(with_gan, "gan_fit.sample_every", 7)


def test_leaky_splits_and_folds_identify_a_run() -> None:
    fold, leaky = config("split=subject_kfold", "split.fold=2"), config("split=thesis")
    found = [run_id_of(cfg, cfg.hydra) for cfg in (fold, leaky)]
    assert [(run.leaky, run.fold) for run in found] == [(False, 2), (True, 0)]
