from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from small_classifiers import parameters
from torch import nn

from leuk.classifiers.base import Classifier, Optim, two_class
from leuk.classifiers.cnn import CNN
from leuk.classifiers.hybrid import Hybrid
from leuk.classifiers.pretrained import Pretrained
from leuk.classifiers.vit import ViT
from leuk.data.labels import Label
from leuk.errors import ConfigError
from leuk.explain.gradcam import GradCAM

TOKENS: dict[str, Any] = {"width": 16, "depth": 2, "mlp": 16}
MAP: dict[str, Any] = {"resolution": 32, "widths": (4, 8, 8), "patch": 2, "stride": 2, **TOKENS}
torch.manual_seed(0)
SMALL: dict[str, Classifier] = {
    "cnn": CNN(resolution=32, widths=(4, 8, 8), hidden=8),
    "cnn-modern": CNN(
        resolution=32, widths=(4, 8), hidden=8, convolutions=2, batch_norm=True, pool="average"
    ),
    "cnn-prototype": CNN(resolution=32, widths=(4, 8, 8), head="prototype"),
    "vit": ViT(resolution=32, patch=8, hidden=8, **TOKENS),
    "vit-modern": ViT(
        resolution=32, patch=8, hidden=8, norm="pre", stem="conv", drop_path=0.2, **TOKENS
    ),
    # PyTorch's initial weights: with Keras's smaller ones some Grad-CAM maps are all negative.
    "vit-attention": ViT(
        resolution=32, patch=8, hidden=8, attention_loss=1.0, stack="torch", **TOKENS
    ),
    "vit-prototype": ViT(resolution=32, patch=8, head="prototype", **TOKENS),
    "hybrid": Hybrid(hidden=(12, 8), **MAP),
    "hybrid-attention": Hybrid(hidden=(8,), fusion="attention", norm="pre", **MAP),
    "hybrid-gated": Hybrid(hidden=(8,), fusion="gated", attention_loss=1.0, **MAP),
    "hybrid-concat": Hybrid(hidden=(8,), fusion="concat", **MAP),
    "hybrid-prototype": Hybrid(head="prototype", **MAP),
    "pretrained": Pretrained(32, "test_resnet", weights="none", side=64),
}
"""Small classifiers of each kind; every contract test runs on all of them."""


def test_cnn_without_arguments_is_the_thesis_form() -> None:
    cnn = CNN()
    assert parameters(cnn) == 13_139_265
    assert cnn(torch.rand(2, 3, 224, 224)).shape == (2, 2)


def test_one_logit_as_two_has_the_same_probability_and_loss() -> None:
    logit = torch.tensor([[-3.0], [0.0], [2.5]])
    pair = two_class(logit)
    torch.testing.assert_close(pair.softmax(dim=1)[:, 1:], logit.sigmoid())
    truth = torch.tensor([0, 1, 1])
    torch.testing.assert_close(
        nn.functional.cross_entropy(pair, truth),
        nn.functional.binary_cross_entropy_with_logits(logit[:, 0], truth.float()),
    )


def test_pooling_before_the_relu_is_pooling_after_it() -> None:
    torch.manual_seed(0)
    cnn = CNN(resolution=32, widths=(4, 8), hidden=8).eval()
    images = torch.randn(3, 3, 32, 32)
    first, second = (block[0] for block in cnn.blocks)
    expected = images
    for convolution in (first, second):
        expected = nn.functional.max_pool2d(convolution(expected).relu(), 2)
    torch.testing.assert_close(cnn.grid(images), expected)
    gradients = [
        torch.autograd.grad(grid.square().sum(), first.weight)[0]
        for grid in (cnn.grid(images), expected)
    ]
    torch.testing.assert_close(*gradients)


def test_resolution_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.resolution=60: .* multiple of 8, such as 64"):
        CNN(resolution=60)


@pytest.mark.parametrize("form", [CNN, ViT, Hybrid])
def test_dropout_is_of_what_the_head_reads(form: type[Classifier]) -> None:
    """A quarter of the features are dropped in training, the others are 4 / 3 as large."""
    torch.manual_seed(0)
    hidden: Any = (8, 400) if form is Hybrid else 400
    model = form(resolution=32, hidden=hidden, dropout=0.25, **TINY[form])  # type: ignore[call-arg]
    inputs: list[torch.Tensor] = []
    head: Any = model.head
    head.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    for training in (True, False):
        model.train(training)
        model.logits(torch.ones(50, 400))
    dropped, kept = inputs
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(dropped.max()) == pytest.approx(4 / 3)
    assert torch.equal(kept, torch.ones(50, 400))


TINY: dict[type[Classifier], dict[str, Any]] = {
    CNN: {"widths": (4, 8)},
    ViT: {"patch": 8, "width": 16, "depth": 1, "heads": 2, "mlp": 16},
    Hybrid: {"widths": (4, 8), "width": 16, "depth": 1, "heads": 2, "mlp": 16},
}


@pytest.mark.parametrize("name", SMALL)
class TestContract:
    def test_logits_and_grid_of_a_batch(self, name: str) -> None:
        model, images = SMALL[name].eval(), torch.rand(5, 3, 32, 32)
        relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
        assert relus
        assert not any(relu.inplace for relu in relus)
        seen: list[Any] = []
        handles = [
            layer.register_forward_hook(lambda module, _, output: seen.append((module, output)))
            for layer in (model.cam_layer, *relus)
        ]
        logits = model(images)
        for handle in handles:
            handle.remove()
        calls = [module for module, _ in seen]
        assert all(calls.count(relu) == 1 + (relu is model.cam_layer) for relu in relus)
        grid = model.cam_grid(next(out for module, out in seen if module is model.cam_layer))
        assert grid.ndim == 4
        assert grid.shape[2] > 1
        assert logits.shape == (5, 2)
        features = model.features(images)
        assert features.ndim == 2
        torch.testing.assert_close(model.logits(features), logits)
        torch.testing.assert_close(model(images[2:3]), logits[2:3])

    def test_gradcam_of_every_image_is_not_degenerate(self, name: str) -> None:
        images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        assert not GradCAM().attribute(SMALL[name], images, Label.ALL, images).degenerate.any()

    def test_logits_depend_only_on_tokens(self, name: str) -> None:
        model, images = SMALL[name].eval(), torch.rand(3, 3, 32, 32)
        assert model.has_patches == name.startswith(("vit", "hybrid"))
        if model.has_patches:
            tokens = model.tokens(images)
            assert tokens.shape[:2] == (3, 16)
            torch.testing.assert_close(model.from_tokens(tokens), model(images))

    def test_training_logits_have_gradients_for_every_parameter(self, name: str) -> None:
        model = type(SMALL[name])(**SMALL[name].hparams).train()
        images = torch.rand(8, 3, 32, 32).to(memory_format=torch.channels_last)
        labels = torch.arange(8) % 2
        with torch.autocast("cpu", torch.bfloat16):
            logits, cost = model.training_logits(images, labels)
        assert cost.shape == ()
        (nn.functional.cross_entropy(logits.float(), labels) + cost).backward()
        grouped = [p for parameters, _ in model.parameter_groups() for p in parameters]
        assert {id(p) for p in grouped} == {id(p) for p in model.parameters()}
        lacking = [n for n, p in model.named_parameters() if p.grad is None]
        assert not lacking
        assert all(p.grad is not None and p.grad.isfinite().all() for p in grouped)

    def test_is_built_without_memory(self, name: str) -> None:
        with torch.device("meta"):
            model = type(SMALL[name])(**SMALL[name].hparams)
            assert model(torch.rand(2, 3, 32, 32)).shape == (2, 2)
        assert {p.device.type for p in model.parameters()} == {"meta"}

    def test_checkpoint_holds_plain_values(self, name: str, tmp_path: Path) -> None:
        model = type(SMALL[name])(**{**SMALL[name].hparams, "optim": Optim(learning_rate=0.5)})
        model.normalize_by([0.1, 0.2, 0.3], [0.5, 0.5, 2.0])
        normalized = model.normalized(torch.ones(1, 3, 32, 32))[0, :, 0, 0]
        assert normalized.tolist() == pytest.approx([1.8, 1.6, 0.35])
        trainer = Trainer(logger=False, accelerator="cpu", default_root_dir=tmp_path)
        trainer.strategy.connect(model)
        trainer.save_checkpoint(tmp_path / "model.ckpt")
        torch.load(tmp_path / "model.ckpt", weights_only=True)
        again = type(model).load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
        assert again.optim == Optim(learning_rate=0.5)
        images = torch.rand(3, 3, 32, 32)
        torch.testing.assert_close(again.eval()(images), model.eval()(images))
