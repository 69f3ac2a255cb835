from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from leuk.data.augment import Transforms
from leuk.data.bank import PixelBank
from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.data.rules import Folds

CPU = torch.device("cpu")


def open_data(root: Path, cache: Path, **changes: object) -> CNMCDataModule:
    arguments = {"resolution": 32, "batch_size": 16, "cache": str(cache), **changes}
    data = CNMCDataModule(str(root), Folds(["fold_0"], 0.25, ["fold_1"]), **arguments)  # type: ignore[arg-type]
    data.prepare_data()
    data.setup()
    return data


def order(data: CNMCDataModule, epoch: int = 0) -> list[int]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return torch.cat(list(loader)).tolist()


@pytest.fixture
def data(phantom: Path, artefacts: Path) -> CNMCDataModule:
    return open_data(phantom, artefacts)


def test_workers_do_not_change_the_order(phantom: Path, artefacts: Path) -> None:
    orders = [order(open_data(phantom, artefacts, workers=workers)) for workers in (0, 2)]
    assert orders[0] == orders[1]


def test_order_depends_on_seed_and_epoch(phantom: Path, artefacts: Path) -> None:
    zero, zero_again, one = (open_data(phantom, artefacts, seed=seed) for seed in (0, 0, 1))
    assert order(zero) == order(zero_again)
    assert order(zero) != order(one)
    assert order(zero) != order(zero, epoch=1)


def test_each_training_cell_once_an_epoch(data: CNMCDataModule) -> None:
    rows = order(data)
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(data.split.train)
    assert len(data.split.train) - len(rows) < data.batch_size


@pytest.mark.parametrize("stage", ["val", "test"])
def test_every_cell_is_judged_once_and_in_order(data: CNMCDataModule, stage: str) -> None:
    rows = torch.cat(list(getattr(data, f"{stage}_dataloader")())).tolist()
    assert rows == getattr(data.split, stage).tolist()


def test_batches_hold_the_cells_of_their_rows(data: CNMCDataModule) -> None:
    rows = torch.tensor([5, 0, 17])
    batch = data.transfer_batch_to_device(rows, CPU, 0)
    assert batch["images"].shape == (3, 3, 32, 32)
    assert batch["images"].is_contiguous(memory_format=torch.channels_last)
    assert batch["labels"].tolist() == [data.dataset.targets[i] for i in (5, 0, 17)]
    np.testing.assert_array_equal(
        (batch["images"] * 255).round().byte().permute(0, 2, 3, 1), data.dataset.data[[5, 0, 17]]
    )


def test_gathering_copies(data: CNMCDataModule) -> None:
    data.transfer_batch_to_device(torch.tensor([0]), CPU, 0)["images"].zero_()
    assert float(data.transfer_batch_to_device(torch.tensor([0]), CPU, 0)["images"].max()) > 0


def test_synthetic_cells_join_the_training_part_only(data: CNMCDataModule) -> None:
    before = {stage: getattr(data.split, stage).copy() for stage in ("train", "val", "test")}
    made = np.full((7, 32, 32, 3), 200, np.uint8)
    data.add_synthetic(made, np.full(len(made), int(Label.HEM)))
    new = np.setdiff1d(data.train, before["train"])
    assert len(new) == 7
    batch = data.transfer_batch_to_device(torch.from_numpy(np.r_[new, 0]), CPU, 0)
    assert batch["labels"].tolist() == [0] * 7 + [data.dataset.targets[0]]
    assert float(batch["images"][:7].min()) == pytest.approx(200 / 255)
    for stage, rows in before.items():
        np.testing.assert_array_equal(getattr(data.split, stage), rows)
    assert len(data.part("train")) == len(before["train"])


def test_bank_checks_its_labels() -> None:
    with pytest.raises(ValueError, match="2 images but 3 labels"):
        PixelBank([np.zeros((2, 4, 4, 3), np.uint8)], np.zeros(3, np.int64))


def test_channel_statistics_are_those_of_the_training_part(data: CNMCDataModule) -> None:
    mean, std = data.channel_statistics()
    pixels = data.dataset.data[data.split.train] / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(std, pixels.std(axis=(0, 1, 2)))


def test_content_depends_on_its_rows_only(data: CNMCDataModule) -> None:
    rows = data.split.train
    before = data.content(rows)
    outside = np.setdiff1d(np.arange(len(data.dataset)), rows)
    data.dataset.data[outside] = 0
    assert data.content(rows) == before
    data.dataset.data[rows[0]] = 0
    assert data.content(rows) != before


def test_only_training_batches_are_augmented(phantom: Path, artefacts: Path) -> None:
    class Trainer:
        training = True
        world_size = 1
        global_rank = 0

    data = open_data(phantom, artefacts, transforms=Transforms(brightness=0.5))
    data.trainer = Trainer()  # type: ignore[assignment]
    rows = torch.arange(4)

    def images() -> Tensor:
        return data.on_after_batch_transfer(data.transfer_batch_to_device(rows, CPU, 0), 0)[
            "images"
        ]

    plain = data.bank.gather(rows, CPU)["images"]
    assert not torch.equal(images(), plain)
    Trainer.training = False
    assert torch.equal(images(), plain)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_store_lives_on_the_device(data: CNMCDataModule) -> None:
    device = torch.device("cuda")
    batch = data.transfer_batch_to_device(torch.tensor([3, 1]), device, 0)
    assert batch["images"].device.type == "cuda"
    torch.testing.assert_close(
        batch["images"].cpu(), data.bank.gather(torch.tensor([3, 1]), CPU)["images"]
    )
