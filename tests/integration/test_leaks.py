"""Test images affect only the test metrics.

A run is repeated with test images replaced by noise or test labels inverted; all results except
test metrics must be equal.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from leuk.cli import main
from leuk.runs.record import Record

PRELIM = "C-NMC_test_prelim_phase_data"


def replace_pixels(root: Path) -> None:
    """Replace each test image with a disc of noise; backgrounds must be black."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64] - 31.5
    for path in sorted((root / PRELIM).iterdir()):
        disc = np.hypot(x, y) < generator.uniform(10, 28)
        noise = generator.integers(20, 255, (64, 64, 3), np.uint8)
        Image.fromarray(noise * disc[..., None].astype(np.uint8)).save(path)


def invert_labels(root: Path) -> None:
    """Invert all labels and names in the table; the new subjects do not exist elsewhere."""
    path = root / f"{PRELIM}_labels.csv"
    table = pd.read_csv(path)
    turned = table["Patient_ID"].str.extract(r"UID_(H?)(\d+)_(.*)_(all|hem)")
    letter = turned[0].map({"H": "", "": "H"})
    label = turned[3].map({"all": "hem", "hem": "all"})
    number = (turned[1].astype(int) + 500).astype(str)
    table["Patient_ID"] = "UID_" + letter + number + "_" + turned[2] + "_" + label + ".bmp"
    table["labels"] = 1 - table["labels"]
    table.to_csv(path, index=False)


CHANGES = {"pixels": replace_pixels, "labels": invert_labels}


@pytest.fixture(scope="module")
def runs(
    phantom: Path, tmp_path_factory: pytest.TempPathFactory, blank_figures: None
) -> dict[str, Path]:
    """Outputs of the same run on the original images and on each altered copy."""
    changes: dict[str, Callable[[Path], None]] = {"none": lambda root: None, **CHANGES}
    outputs = {}
    for name, change in changes.items():
        base = tmp_path_factory.mktemp(name)
        shutil.copytree(phantom, base / "cells")
        change(base / "cells")
        overrides = [
            "augmentation=dcgan", "data=cnmc", f"data.root={base}/cells", "data.resolution=32",
            "data.batch_size=16", "fit.epochs=4", "gan_fit.epochs=2", "gan_fit.batch_size=8",
            "explain=none", "trainer=cpu",
        ]  # fmt: skip
        assert main(["train", f"outputs={base}/out", *overrides]) == 0
        outputs[name] = base / "out"
    return outputs


def run_folder(outputs: Path) -> Path:
    (path,) = outputs.glob("runs/single/*/record.json")
    return path.parent


def checkpoint(outputs: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(
        run_folder(outputs) / "checkpoints/best.ckpt", weights_only=True
    )
    return loaded


@pytest.mark.parametrize("altered", CHANGES)
class TestTestImagesDoNotLeak:
    def test_test_metrics_change(self, runs: dict[str, Path], altered: str) -> None:
        before, after = (Record.read(run_folder(runs[name])).metrics for name in ("none", altered))
        assert before["test"] != after["test"]

    def test_gan_and_its_images(self, runs: dict[str, Path], altered: str) -> None:
        for pattern in ("artifacts/gan/*/gan.ckpt", "artifacts/synthetic/*/images.npy"):
            (before,), (after,) = (list(runs[name].glob(pattern)) for name in ("none", altered))
            assert before.parent.name == after.parent.name
        images = [
            np.load(next(runs[n].glob("artifacts/synthetic/*/*.npy"))) for n in ("none", altered)
        ]
        np.testing.assert_array_equal(*images)

    def test_quality_of_synthetic_images(self, runs: dict[str, Path], altered: str) -> None:
        before, after = (Record.read(run_folder(runs[name])).data for name in ("none", altered))
        assert before["synthetic"]["quality"]["hem"]["rows"]
        assert before["synthetic"]["quality"] == after["synthetic"]["quality"]

    def test_weights_and_normalization(self, runs: dict[str, Path], altered: str) -> None:
        before, after = (checkpoint(runs[name])["state_dict"] for name in ("none", altered))
        assert float(before["std"].min()) != 1  # it is used
        for name, value in before.items():
            assert torch.equal(value, after[name]), name

    def test_early_stopping_and_the_best_checkpoint(
        self, runs: dict[str, Path], altered: str
    ) -> None:
        before, after = (checkpoint(runs[name]) for name in ("none", altered))
        assert before["epoch"] == after["epoch"]
        logs = [
            pd.read_csv(run_folder(runs[name]) / "log/metrics.csv") for name in ("none", altered)
        ]
        pd.testing.assert_frame_equal(*logs)

    def test_threshold_and_validation_metrics(self, runs: dict[str, Path], altered: str) -> None:
        before, after = (Record.read(run_folder(runs[name])).metrics for name in ("none", altered))
        assert before["thresholds"] == after["thresholds"]
        assert before["val"] == after["val"]


def test_the_gan_trains_on_healthy_training_images_only(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from leuk.gans.dcgan import DCGAN

    seen: list[torch.Tensor] = []
    step = DCGAN.training_step

    def spy(self: DCGAN, batch: Any, batch_index: int) -> None:
        seen.append(batch["rows"])
        assert set(batch["labels"].tolist()) == {0}
        step(self, batch, batch_index)

    monkeypatch.setattr(DCGAN, "training_step", spy)
    overrides = [
        "augmentation=dcgan", "data=cnmc", f"data.root={phantom}", "data.resolution=32",
        "fit.epochs=1", "gan_fit.epochs=6", "gan_fit.batch_size=4", "explain=none", "trainer=cpu",
    ]  # fmt: skip
    assert main(["train", f"outputs={tmp_path}", *overrides]) == 0
    from leuk.data.datamodule import CNMCDataModule
    from leuk.data.rules import Folds

    data = CNMCDataModule(str(phantom), Folds(), resolution=32, cache=str(tmp_path / "artifacts"))
    data.setup()
    train = data.stage("train")
    healthy = set(train.index[train["label"] == 0])
    rows = set(torch.cat(seen).tolist())
    assert rows
    assert rows <= healthy
