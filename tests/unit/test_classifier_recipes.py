"""Schedules, weight decay, test-time views and weight averages."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from small_classifiers import Squares, small, trainer_for

from leuk.classifiers.base import dihedral
from leuk.classifiers.optim import Optim, build_optimizer, schedule_of
from leuk.errors import TrainingError
from leuk.training import WeightEMA


def test_cosine_warms_up_and_ends_near_zero() -> None:
    optim = Optim(1e-3, schedule="cosine", warmup_epochs=1)
    optimizer = build_optimizer(optim, small("cnn").parameter_groups())
    changing = schedule_of(optim, optimizer, epochs=10, steps=100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        changing.step()
    assert rates[0] == pytest.approx(1e-3 / 11)
    assert max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) == 10
    assert rates[-1] == pytest.approx(1e-5, rel=0.1)


def test_plateau_lowers_the_rate(tmp_path: Path) -> None:
    # The rate is too small to change the weights, and the ViT has no running statistics: the
    # validation loss is constant, and the rate falls after every epoch but the first.
    optim = Optim(1e-12, schedule="plateau", plateau_factor=0.5, plateau_patience=1)
    trainer = trainer_for(tmp_path, max_epochs=8)
    trainer.fit(small("vit", optim), datamodule=Squares())
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-12 / 2**7, abs=0)


def test_biases_and_norms_have_no_weight_decay() -> None:
    model = small("cnn")
    optimizer = build_optimizer(Optim(weight_decay=0.1), model.parameter_groups())
    assert type(optimizer) is torch.optim.AdamW
    for group in optimizer.param_groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] > 0}
    assert type(build_optimizer(Optim(), model.parameter_groups())) is torch.optim.Adam


def test_eight_views_are_all_turns_and_flips() -> None:
    image = torch.arange(4.0).view(1, 1, 2, 2)
    views = dihedral(image)
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8


@pytest.mark.parametrize("during", ["fit", "validate", "test"])
def test_views_are_averaged_wherever_images_are_scored(during: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = small("cnn", Optim(1e-9, test_views=8)).eval()
    squares = Squares()
    if during == "fit":
        trainer_for(tmp_path, max_epochs=1).fit(model, datamodule=squares)
        model.eval()
    else:
        getattr(trainer_for(tmp_path), during)(model, datamodule=squares, verbose=False)
    images = squares.bank.gather(torch.tensor(squares.held), torch.device("cpu"))["images"]
    with torch.no_grad():
        mean = torch.stack([model(view) for view in dihedral(images)]).mean(0)
    expected = mean.double().softmax(1)[:, 1]
    torch.testing.assert_close(model.collected().scores, expected, atol=1e-6, rtol=0)
    assert not torch.allclose(expected, model(images).double().softmax(1)[:, 1], atol=1e-6)


def test_fit_ends_with_the_average(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, decay = small("cnn", Optim(1e-2)), 0.5
    expected = {k: v.clone() for k, v in model.state_dict().items()}

    class Follow(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            share = 1 - min(decay, (1 + trainer.global_step) / (10 + trainer.global_step))
            for key, value in pl_module.state_dict().items():
                if value.is_floating_point():
                    expected[key].lerp_(value, share)

    trainer = trainer_for(tmp_path, [Follow(), WeightEMA(decay)])
    trainer.fit(model, datamodule=Squares())
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[key])


def test_weights_broken_by_the_last_step_raise_an_error(tmp_path: Path) -> None:
    model = small("cnn")
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    trainer_for(tmp_path).test(model, datamodule=Squares(), verbose=False)
    with pytest.raises(TrainingError, match=r"no finite scores.*lower model\.optim\.learning_rate"):
        model.collected()
