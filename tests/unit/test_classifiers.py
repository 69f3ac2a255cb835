from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from leuk.classifiers.classifier import Classifier, Optim, two_class
from leuk.classifiers.cnn import CNN
from leuk.errors import ConfigError

SMALL: dict[str, Classifier] = {"cnn": CNN(resolution=32, widths=(4, 8, 8), hidden=8)}
"""One small classifier of each kind; every test of the contract runs over all of them."""


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_cnn_without_arguments_is_the_thesis_form() -> None:
    cnn = CNN()
    assert parameters(cnn) == 13_139_265
    assert cnn(torch.rand(2, 3, 224, 224)).shape == (2, 2)


def test_small_cnn_is_the_same_layers_at_64_px() -> None:
    # 93,248 in convolutions, 16,384 in the norm, 8192 x 128 + 128 hidden, 129 in the head.
    assert parameters(CNN(resolution=64)) == 93_248 + 16_384 + 1_048_704 + 129


def test_one_logit_as_two_has_the_same_probability_and_loss() -> None:
    logit = torch.tensor([[-3.0], [0.0], [2.5]])
    pair = two_class(logit)
    torch.testing.assert_close(pair.softmax(dim=1)[:, 1:], logit.sigmoid())
    truth = torch.tensor([0, 1, 1])
    torch.testing.assert_close(
        nn.functional.cross_entropy(pair, truth),
        nn.functional.binary_cross_entropy_with_logits(logit[:, 0], truth.float()),
    )


def test_resolution_that_cannot_be_halved() -> None:
    with pytest.raises(ConfigError, match=r"data\.resolution=60: .* multiple of 8, such as 64"):
        CNN(resolution=60)


@pytest.mark.parametrize("name", SMALL)
class TestContract:
    def test_logits_are_two_classes(self, name: str) -> None:
        images = torch.rand(5, 3, 32, 32)
        model = SMALL[name].eval()
        features = model.features(images)
        assert features.ndim == 2
        torch.testing.assert_close(model.logits(features), model(images))
        assert model(images).shape == (5, 2)

    def test_cam_layer_gives_a_grid(self, name: str) -> None:
        model = SMALL[name].eval()
        seen: list[torch.Tensor] = []
        handle = model.cam_layer.register_forward_hook(lambda *args: seen.append(args[2]))
        model(torch.rand(2, 3, 32, 32))
        handle.remove()
        assert len(seen) == 1
        grid = model.cam_grid(seen[0])
        assert grid.ndim == 4
        assert grid.shape[2] > 1

    def test_relus_are_modules_of_their_own(self, name: str) -> None:
        model = SMALL[name]
        relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
        assert relus
        assert not any(relu.inplace for relu in relus)
        calls = {id(relu): 0 for relu in relus}
        handles = [
            relu.register_forward_hook(lambda m, *_: calls.update({id(m): calls[id(m)] + 1}))
            for relu in relus
        ]
        model.eval()(torch.rand(2, 3, 32, 32))
        for handle in handles:
            handle.remove()
        assert set(calls.values()) == {1}

    def test_normalisation_is_the_first_step(self, name: str) -> None:
        model = type(SMALL[name])(**SMALL[name].hparams)
        model.normalise_by([0.1, 0.2, 0.3], [0.5, 0.5, 2.0])
        images = torch.ones(1, 3, 32, 32)
        assert model.normalised(images)[0, :, 0, 0].tolist() == pytest.approx([1.8, 1.6, 0.35])

    def test_checkpoint_holds_plain_values(self, name: str, tmp_path: Path) -> None:
        model = type(SMALL[name])(**{**SMALL[name].hparams, "optim": Optim(learning_rate=0.5)})
        model.normalise_by([0.1, 0.2, 0.3], [1.0, 1.0, 1.0])
        trainer = Trainer(logger=False, accelerator="cpu", default_root_dir=tmp_path)
        trainer.strategy.connect(model)
        trainer.save_checkpoint(tmp_path / "model.ckpt")
        torch.load(tmp_path / "model.ckpt", weights_only=True)
        again = type(model).load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
        assert again.optim == Optim(learning_rate=0.5)
        images = torch.rand(3, 3, 32, 32)
        torch.testing.assert_close(again.eval()(images), model.eval()(images))


def test_weight_decay_chooses_adamw() -> None:
    assert type(CNN(resolution=32).configure_optimizers()) is torch.optim.Adam
    decayed = CNN(resolution=32, optim=Optim(weight_decay=0.1)).configure_optimizers()
    assert type(decayed) is torch.optim.AdamW
