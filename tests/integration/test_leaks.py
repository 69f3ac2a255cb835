"""Test images affect only the test metrics.

A run is repeated with test images replaced by noise and test labels inverted; all results except
test metrics must be equal.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from leuk.cli import main
from leuk.data.datamodule import CNMCDataModule
from leuk.data.rules import Folds
from leuk.gans.dcgan import DCGAN
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


@pytest.fixture(scope="module")
def seen() -> Iterator[list[torch.Tensor]]:
    """Rows of all images that GANs train on."""
    step, rows = DCGAN.training_step, []

    def spy(self: DCGAN, batch: Any, batch_index: int) -> None:
        rows.append(batch["rows"])
        step(self, batch, batch_index)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(DCGAN, "training_step", spy)
        yield rows


@pytest.fixture(scope="module")
def runs(
    phantom: Path,
    tmp_path_factory: pytest.TempPathFactory,
    seen: list[torch.Tensor],
    blank_figures: None,
) -> list[Path]:
    """Outputs of the same run on the original images and on an altered copy."""
    outputs = []
    for altered in (False, True):
        base = tmp_path_factory.mktemp("leaks")
        shutil.copytree(phantom, base / "cells")
        if altered:
            replace_pixels(base / "cells")
            invert_labels(base / "cells")
        overrides = [
            "augmentation=dcgan", "data=cnmc", f"data.root={base}/cells", "data.resolution=32",
            "data.batch_size=16", "fit.epochs=4", "gan_fit.epochs=2", "gan_fit.batch_size=8",
            "explain=none", "trainer=cpu",
        ]  # fmt: skip
        assert main(["train", f"outputs={base}/out", *overrides]) == 0
        outputs.append(base / "out")
    return outputs


def run_folder(outputs: Path) -> Path:
    (path,) = outputs.glob("runs/single/*/record.json")
    return path.parent


def test_altered_test_images_change_test_metrics_only(runs: list[Path]) -> None:
    before, after = (Record.read(run_folder(one)) for one in runs)
    assert before.metrics["test"] != after.metrics["test"]
    # Validation metrics and thresholds.
    assert before.metrics["thresholds"] == after.metrics["thresholds"]
    assert before.metrics["val"] == after.metrics["val"]
    # The GAN, its images and their quality.
    assert before.data["synthetic"]["quality"]["hem"]["rows"]
    assert before.data["synthetic"]["quality"] == after.data["synthetic"]["quality"]
    for pattern in ("artifacts/gan/*/gan.ckpt", "artifacts/synthetic/*/images.npy"):
        first, second = (next(one.glob(pattern)) for one in runs)
        assert first.parent.name == second.parent.name
    np.testing.assert_array_equal(np.load(first), np.load(second))
    # Weights, normalization, early stopping and the best checkpoint.
    one, other = (
        torch.load(run_folder(folder) / "checkpoints/best.ckpt", weights_only=True)
        for folder in runs
    )
    assert one["epoch"] == other["epoch"]
    assert float(one["state_dict"]["std"].min()) != 1  # it is used
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    logs = (pd.read_csv(run_folder(folder) / "log/metrics.csv") for folder in runs)
    pd.testing.assert_frame_equal(*logs)


def test_the_gan_trains_on_healthy_training_images_only(
    runs: list[Path], seen: list[torch.Tensor], phantom: Path, artifacts: Path
) -> None:
    data = CNMCDataModule(str(phantom), Folds(), resolution=32, cache=str(artifacts))
    data.setup()
    train = data.stage("train")
    rows = set(torch.cat(seen).tolist())
    assert rows
    assert rows <= set(train.index[train["label"] == 0])
