"""The test part reaches nothing but the figures on it.

Each test runs a cell twice, the second time with every test image replaced by noise or every test
label turned round, and compares what must not have noticed.
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
from leuk.grid.record import Record

PRELIM = "C-NMC_test_prelim_phase_data"


def spoil_pixels(root: Path) -> None:
    generator = np.random.default_rng(0)
    for path in sorted((root / PRELIM).iterdir()):
        Image.fromarray(generator.integers(0, 255, (64, 64, 3), np.uint8)).save(path)


def spoil_labels(root: Path) -> None:
    """Turn every label of the table round, the names too, to subjects that there are not."""
    path = root / f"{PRELIM}_labels.csv"
    table = pd.read_csv(path)
    turned = table["Patient_ID"].str.extract(r"UID_(H?)(\d+)_(.*)_(all|hem)")
    letter = turned[0].map({"H": "", "": "H"})
    label = turned[3].map({"all": "hem", "hem": "all"})
    number = (turned[1].astype(int) + 500).astype(str)
    table["Patient_ID"] = "UID_" + letter + number + "_" + turned[2] + "_" + label + ".bmp"
    table["labels"] = 1 - table["labels"]
    table.to_csv(path, index=False)


SPOILERS = {"pixels": spoil_pixels, "labels": spoil_labels}


@pytest.fixture(scope="module")
def runs(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Outputs of one cell on the cells as they are, and on each spoilt copy."""
    spoilers: dict[str, Callable[[Path], None]] = {"none": lambda root: None, **SPOILERS}
    outputs = {}
    for name, spoil in spoilers.items():
        base = tmp_path_factory.mktemp(name)
        shutil.copytree(phantom, base / "cells")
        spoil(base / "cells")
        overrides = [
            "augmentation=dcgan", "data=cnmc", f"data.root={base}/cells", "data.resolution=32",
            "data.batch_size=16", "fit.epochs=4", "gan_fit.epochs=2", "gan_fit.batch_size=8",
            "explain=none", "trainer=cpu",
        ]  # fmt: skip
        assert main(["train", f"outputs={base}/out", *overrides]) == 0
        outputs[name] = base / "out"
    return outputs


def cell(outputs: Path) -> Path:
    (path,) = outputs.glob("runs/single/*/record.json")
    return path.parent


def checkpoint(outputs: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(cell(outputs) / "checkpoints/best.ckpt", weights_only=True)
    return loaded


@pytest.mark.parametrize("spoilt", SPOILERS)
class TestTestPartReachesNothing:
    def test_the_test_figures_do_notice(self, runs: dict[str, Path], spoilt: str) -> None:
        before, after = (Record.read(cell(runs[name])).metrics for name in ("none", spoilt))
        assert before["test"] != after["test"]

    def test_gan_and_its_cells(self, runs: dict[str, Path], spoilt: str) -> None:
        for pattern in ("artifacts/gan/*/gan.ckpt", "artifacts/synthetic/*/cells.npy"):
            (before,), (after,) = (list(runs[name].glob(pattern)) for name in ("none", spoilt))
            assert before.parent.name == after.parent.name
        made = [
            np.load(next(runs[n].glob("artifacts/synthetic/*/*.npy"))) for n in ("none", spoilt)
        ]
        np.testing.assert_array_equal(*made)

    def test_quality_of_made_cells(self, runs: dict[str, Path], spoilt: str) -> None:
        before, after = (Record.read(cell(runs[name])).data for name in ("none", spoilt))
        assert before["synthetic"]["quality"]["hem"]["rows"]
        assert before["synthetic"]["quality"] == after["synthetic"]["quality"]

    def test_weights_and_normalization(self, runs: dict[str, Path], spoilt: str) -> None:
        before, after = (checkpoint(runs[name])["state_dict"] for name in ("none", spoilt))
        assert float(before["std"].min()) != 1  # it is used
        for name, value in before.items():
            assert torch.equal(value, after[name]), name

    def test_early_stopping_and_the_best_checkpoint(
        self, runs: dict[str, Path], spoilt: str
    ) -> None:
        before, after = (checkpoint(runs[name]) for name in ("none", spoilt))
        assert before["epoch"] == after["epoch"]
        logs = [pd.read_csv(cell(runs[name]) / "log/metrics.csv") for name in ("none", spoilt)]
        pd.testing.assert_frame_equal(*logs)

    def test_threshold_and_validation_figures(self, runs: dict[str, Path], spoilt: str) -> None:
        before, after = (Record.read(cell(runs[name])).metrics for name in ("none", spoilt))
        assert before["thresholds"] == after["thresholds"]
        assert before["val"] == after["val"]


def test_the_gan_sees_healthy_training_cells_only(
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
