from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from leuk.data.augment import Transforms
from leuk.data.datamodule import CNMCDataModule, Draws, ImageBatches
from leuk.data.labels import Label
from leuk.data.pixels import PixelBank
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
def data(phantom: Path, artifacts: Path) -> CNMCDataModule:
    return open_data(phantom, artifacts)


def test_order_depends_on_seed_and_epoch_but_not_on_workers(phantom: Path, artifacts: Path) -> None:
    zero, one, workers = (
        open_data(phantom, artifacts, **changes)
        for changes in ({"seed": 0}, {"seed": 1}, {"seed": 0, "workers": 2})
    )
    rows = order(zero)
    assert rows == order(workers)
    assert rows != order(one)
    assert rows != order(zero, epoch=1)
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(zero.split.train)
    assert len(zero.split.train) - len(rows) < zero.batch_size


def drawn(
    images: int, draws: int, epochs: int, processes: int = 1, seed: int = 5
) -> list[list[int]]:
    """Return the draws of each epoch over all processes, with new samplers per epoch."""
    found: list[list[int]] = []
    for epoch in range(epochs):
        ranks = []
        for rank in range(processes):
            sampler = Draws(images, draws, processes, rank, seed)
            sampler.set_epoch(epoch)
            ranks.append(list(sampler))
            assert len(ranks[-1]) == len(sampler) == -(-draws // processes)
        found.append([row for turn in zip(*ranks, strict=True) for row in turn])
    return found


@pytest.mark.parametrize(("images", "draws"), [(15, 10), (31, 10), (10, 10), (9, 14)])
def test_no_image_is_drawn_again_before_all_were(images: int, draws: int) -> None:
    stream = [row for epoch in drawn(images, draws, epochs=8) for row in epoch]
    assert len(stream) == 8 * draws
    for start in range(0, len(stream) - images + 1, images):
        assert sorted(stream[start : start + images]) == list(range(images))
    assert drawn(images, draws, 8, seed=6)[0] != stream[:draws] != sorted(stream[:draws])
    if len(stream) >= 2 * images:
        assert stream[:images] != stream[images : 2 * images]


@pytest.mark.parametrize("draws", [10, 11])
def test_two_processes_share_the_draws_of_one(draws: int) -> None:
    for one, two in zip(drawn(15, draws, 5), drawn(15, draws, 5, processes=2), strict=True):
        # An odd number of draws is padded with the first.
        assert two == one + one[: draws % 2]


def test_as_many_draws_as_images_shuffle_as_torch_does() -> None:
    for epoch, found in enumerate(drawn(12, 12, epochs=3)):
        expected = DistributedSampler(range(12), num_replicas=1, rank=0, seed=5)  # type: ignore[arg-type,var-annotated]
        expected.set_epoch(epoch)
        assert found == list(expected)


def test_epoch_of_equal_updates(data: CNMCDataModule) -> None:
    real = len(data.split.train)
    synthetic = np.full((real // 2, 32, 32, 3), 200, np.uint8)
    data.add_synthetic(synthetic, np.full(len(synthetic), int(Label.HEM)))
    passes = len(data.train_dataloader())
    data.images_per_epoch = real
    assert len(data.train_dataloader()) == real // data.batch_size < passes
    seen: set[int] = set()
    for epoch in range(12):
        rows = order(data, epoch)
        assert len(rows) == real // data.batch_size * data.batch_size
        seen |= set(rows)
    assert seen == set(data.train)
    expected = data.expected_epoch()
    assert sum(expected.values()) == pytest.approx(real)
    healthy = (data.bank.labels.numpy()[data.train] == Label.HEM).mean() * real
    assert expected["hem"] == pytest.approx(healthy)


def test_validation_and_test_images_are_evaluated_once_and_in_order(data: CNMCDataModule) -> None:
    for stage in ("val", "test"):
        rows = torch.cat(list(getattr(data, f"{stage}_dataloader")())).tolist()
        assert rows == getattr(data.split, stage).tolist() == data.stage(stage).index.tolist()
        names, found = data.stage(stage)["path"].tolist(), data.counts()[stage]
        assert found["hem"] == sum("/hem/" in name for name in names)
        assert found["all"] == sum("/all/" in name for name in names)
        assert found["subjects"] == data.stage(stage)["subject"].nunique()


def test_batches_contain_the_images_of_their_rows(data: CNMCDataModule) -> None:
    rows = torch.tensor([5, 0, 17])
    batch = data.transfer_batch_to_device(rows, CPU, 0)
    assert batch["images"].shape == (3, 3, 32, 32)
    assert batch["images"].is_contiguous(memory_format=torch.channels_last)
    assert batch["labels"].tolist() == data.dataset.index["label"][[5, 0, 17]].tolist()
    np.testing.assert_array_equal(
        (batch["images"] * 255).round().byte().permute(0, 2, 3, 1), data.dataset.data[[5, 0, 17]]
    )


def test_synthetic_images_and_repeated_rows_are_added_to_training_only(
    data: CNMCDataModule,
) -> None:
    before = {stage: getattr(data.split, stage).copy() for stage in ("train", "val", "test")}
    synthetic = np.full((7, 32, 32, 3), 200, np.uint8)
    data.add_synthetic(synthetic, np.full(len(synthetic), int(Label.HEM)))
    new = np.setdiff1d(data.train, before["train"])
    assert len(new) == 7
    batch = data.transfer_batch_to_device(torch.from_numpy(np.r_[new, 0]), CPU, 0)
    assert batch["labels"].tolist() == [0] * 7 + [data.dataset.index["label"][0]]
    assert float(batch["images"][:7].min()) == pytest.approx(200 / 255)
    data.repeat(new[:2])
    assert data.train.tolist() == [*before["train"], *new, *new[:2]]
    for stage, rows in before.items():
        np.testing.assert_array_equal(getattr(data.split, stage), rows)
    assert len(data.stage("train")) == len(before["train"])


def test_statistics_and_content_are_those_of_the_training_images(data: CNMCDataModule) -> None:
    rows, (mean, std) = data.split.train, data.channel_statistics()
    pixels = data.dataset.data[rows] / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(std, pixels.std(axis=(0, 1, 2)))
    before = data.content(rows)
    data.dataset.data[np.setdiff1d(np.arange(len(data.dataset)), rows)] = 0
    assert data.content(rows) == before
    data.dataset.data[rows[0]] = 0
    assert data.content(rows) != before


def test_only_training_batches_are_augmented(phantom: Path, artifacts: Path) -> None:
    class Trainer:
        training = True
        world_size = 1
        global_rank = 0

    data = open_data(phantom, artifacts, transforms=Transforms(brightness=0.5))
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
def test_store_is_copied_to_the_device(data: CNMCDataModule) -> None:
    device = torch.device("cuda")
    batch = data.transfer_batch_to_device(torch.tensor([3, 1]), device, 0)
    assert batch["images"].device.type == "cuda"
    torch.testing.assert_close(
        batch["images"].cpu(), data.bank.gather(torch.tensor([3, 1]), CPU)["images"]
    )


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
