"""Order, counts and stages of the data, by hand-computed values."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from leuk.data.datamodule import CNMCDataModule, ImageBatches
from leuk.data.labels import Label
from leuk.data.pixels import PixelBank
from leuk.data.rules import Folds
from leuk.data.splits import effective_patients


@pytest.fixture(scope="module")
def data(phantom: Path, artifacts: Path) -> CNMCDataModule:
    rule = Folds(["fold_0"], 0.25, ["fold_1"])
    data = CNMCDataModule(str(phantom), rule, resolution=16, batch_size=8, cache=str(artifacts))
    data.setup()
    return data


def batches_of(rank: int, seed: int = 0) -> list[list[int]]:
    """Training rows of one of two processes, batch by batch."""
    bank = PixelBank([np.zeros((24, 2, 2, 3), np.uint8)], np.arange(24) % 2)
    batches = ImageBatches(bank, np.arange(24), batch_size=8, seed=seed)
    batches.trainer = SimpleNamespace(world_size=2, global_rank=rank)  # type: ignore[assignment]
    return [rows.tolist() for rows in batches.train_dataloader()]


def test_processes_share_the_training_rows_and_the_batch() -> None:
    first, second = batches_of(0), batches_of(1)
    assert [len(rows) for rows in (*first, *second)] == [4] * 6
    assert sorted(row for rows in (*first, *second) for row in rows) == list(range(24))
    assert batches_of(0, seed=1) != first


def test_labels_are_those_of_the_challenge() -> None:
    assert [(label.folder, int(label)) for label in Label] == [("hem", 0), ("all", 1)]


def test_counts_are_those_of_each_stage(data: CNMCDataModule) -> None:
    for stage, found in data.counts().items():
        names = data.stage(stage)["path"].tolist()
        assert found["hem"] == sum("/hem/" in name for name in names)
        assert found["all"] == sum("/all/" in name for name in names)
        assert found["subjects"] == data.stage(stage)["subject"].nunique()


def test_repeated_rows_are_added_to_the_training_rows(phantom: Path, artifacts: Path) -> None:
    rule = Folds(["fold_0"], 0.25, ["fold_1"])
    data = CNMCDataModule(str(phantom), rule, resolution=16, cache=str(artifacts))
    data.setup()
    before = data.train.tolist()
    data.repeat(np.array([before[0], before[0]]))
    assert data.train.tolist() == [*before, before[0], before[0]]
    assert data.split.train.tolist() == before


def test_synthetic_images_are_numbered_after_the_real_ones(phantom: Path, artifacts: Path) -> None:
    rule = Folds(["fold_0"], 0.25, ["fold_1"])
    data = CNMCDataModule(str(phantom), rule, resolution=16, cache=str(artifacts))
    data.setup()
    before = data.bank.labels.tolist()
    data.add_synthetic(np.zeros((3, 16, 16, 3), np.uint8), np.array([1, 0, 0]))
    assert data.bank.labels.tolist() == [*before, 1, 0, 0]


def test_validation_and_test_loaders_have_their_own_stage(data: CNMCDataModule) -> None:
    for stage in ("val", "test"):
        rows = torch.cat(list(getattr(data, f"{stage}_dataloader")())).tolist()
        assert rows == data.stage(stage).index.tolist()
    assert not set(data.split.val) & set(data.split.test)


def test_effective_patients_by_hand() -> None:
    """Two patients of 3 and 1 images: 16 / 10."""
    assert effective_patients(["a", "a", "a", "b"]) == pytest.approx(1.6)
    assert effective_patients(["a", "b", "c"]) == pytest.approx(3.0)
