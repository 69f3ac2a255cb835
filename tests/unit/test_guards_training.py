"""Random streams, initial weights, loss guard and average, compared with values by hand."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from small_classifiers import small as small_classifier
from small_gans import small as small_gan
from torch import Tensor, nn

from leuk.data.augment import Transforms
from leuk.errors import TrainingError
from leuk.training import FirstBad, WeightEMA, glorot, move_average, start_stream


def process(rank: int, epoch: int) -> Any:
    """Stand-in for the trainer of one of two processes."""
    return SimpleNamespace(
        global_rank=rank, current_epoch=epoch, world_size=2, strategy=SimpleNamespace()
    )


def noise(seed: int, rank: int, epoch: int) -> Tensor:
    """First latent vectors that a GAN draws in an epoch."""
    gan = small_gan("dcgan")
    gan.trainer = process(rank, epoch)
    torch.manual_seed(seed)
    gan.on_fit_start()
    gan.on_train_epoch_start()
    return gan.noise(4)


def augmented(seed: int, rank: int, epoch: int) -> Tensor:
    """First augmented images of a classifier's epoch."""
    classifier = small_classifier("cnn")
    classifier.trainer = process(rank, epoch)
    torch.manual_seed(seed)
    classifier.on_fit_start()
    classifier.on_train_epoch_start()
    return Transforms(brightness=0.5, color=0.5)(torch.full((4, 3, 2, 2), 0.5))


@pytest.mark.parametrize("drawn", [noise, augmented])
def test_every_seed_process_and_epoch_has_its_own_stream(drawn: Any) -> None:
    first = drawn(7, 0, 0)
    torch.testing.assert_close(drawn(7, 0, 0), first, rtol=0, atol=0)
    for other in ((8, 0, 0), (7, 1, 0), (7, 0, 1), (7, 1, 1)):
        assert not torch.equal(drawn(*other), first), other
    assert not torch.equal(drawn(7, 1, 0), drawn(7, 0, 1))


def test_streams_of_many_processes_and_epochs_differ() -> None:
    seeds = set()
    for seed in range(3):
        for epoch in range(50):
            for rank in range(8):
                start_stream(seed, epoch, rank)
                seeds.add(torch.initial_seed())
    assert len(seeds) == 3 * 50 * 8


@pytest.mark.parametrize(
    ("layer", "bound"),
    [
        (nn.Linear(64, 32), math.sqrt(6 / (64 + 32))),
        (nn.Conv2d(4, 8, 3), math.sqrt(6 / (9 * (4 + 8)))),
        (nn.ConvTranspose2d(4, 8, 3), math.sqrt(6 / (9 * (4 + 8)))),
    ],
)
def test_weights_start_within_the_glorot_bound(layer: Any, bound: float) -> None:
    torch.manual_seed(0)
    nn.init.constant_(layer.bias, 5.0)
    glorot(layer)
    largest = float(layer.weight.detach().abs().max())
    assert 0.95 * bound < largest <= bound
    assert float(layer.bias.detach().abs().max()) == 0


def test_first_non_finite_loss_is_named() -> None:
    bad = FirstBad()
    bad.note(torch.tensor([1.0, 2.0]), 3)
    bad.check(SimpleNamespace(reduce=lambda step, reduce_op: step), "step", "stop")  # type: ignore[arg-type]
    bad.note(torch.tensor([1.0, math.nan]), 5)
    bad.note(torch.tensor([math.inf, 1.0]), 8)
    with pytest.raises(TrainingError, match="infinite at step 5; stop"):
        bad.check(SimpleNamespace(reduce=lambda step, reduce_op: step), "step", "stop")  # type: ignore[arg-type]


def test_non_finite_loss_of_another_process_stops_this_one() -> None:
    def reduce(step: Tensor, reduce_op: str) -> Tensor:
        other = torch.tensor(4)
        return {"max": torch.maximum, "min": torch.minimum}[reduce_op](step, other)

    with pytest.raises(TrainingError, match="infinite at step 4"):
        FirstBad().check(SimpleNamespace(reduce=reduce), "step", "stop")  # type: ignore[arg-type]


def test_the_average_of_weights_by_hand() -> None:
    """Decay is 0.5 after 100 updates; at the first update the ramp limits it to 2/11."""
    past = {"w": torch.tensor([4.0]), "n": torch.tensor(1)}
    move_average(past, {"w": torch.tensor([2.0]), "n": torch.tensor(9)}, 0.5, 100)
    assert past["w"].item() == pytest.approx(3.0)
    assert past["n"].item() == 9
    past = {"w": torch.tensor([11.0])}
    move_average(past, {"w": torch.tensor([0.0])}, 0.5, 1)
    assert past["w"].item() == pytest.approx(2.0)


class Scale(LightningModule):
    """One weight, 11 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([11.0]))


def test_the_averaged_model_follows_the_trained_one() -> None:
    """After one update from 11 to 0 the ramp keeps 2/11 of the past, which is 2; once a step."""
    module, callback = Scale(), WeightEMA(0.9)
    trainer: Any = SimpleNamespace(global_step=1)
    callback.setup(trainer, module, "fit")
    with torch.no_grad():
        module.weight.zero_()
    for _ in range(2):
        callback.on_train_batch_end(trainer, module, None, None, 0)
        assert callback._average_model is not None
        assert callback._average_model.module.weight.item() == pytest.approx(2)
