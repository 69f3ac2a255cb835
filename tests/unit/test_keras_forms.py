"""Models with ``stack="keras"`` compute the same values as Keras.

Expected values were computed with Keras 3.8.0 on TensorFlow 2.21 by the layers in the comments.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from omegaconf import OmegaConf
from torch import Tensor, nn

from leuk.classifiers.cnn import CNN
from leuk.classifiers.hybrid import Hybrid
from leuk.classifiers.optim import Optim, plateau_of
from leuk.classifiers.transformer import Block
from leuk.classifiers.vit import ViT
from leuk.data.labels import Label
from leuk.gans.cgan import CGAN, Embedded
from leuk.gans.dcgan import DCGAN
from leuk.gans.layers import LeakyReLU
from leuk.gans.wgan import WGANGP
from leuk.runs.finished import FinishedRun
from leuk.runs.gan import load_gan
from leuk.runs.trainer import older_arguments
from leuk.training import (
    KerasAdam,
    KerasAttention,
    KerasBatchNorm1d,
    KerasBatchNorm2d,
    SameConv2d,
    SameConvTranspose2d,
    glorot,
    layer_norm,
)

MAP: dict[str, Any] = {"widths": (4, 4, 8, 8), "width": 16, "depth": 2, "patch": 2, "stride": 2}
PLAIN: dict[str, Any] = {"latent": 8, "first": 8, "widths": (8,) * 5, "adversary_widths": (8, 8)}
FORMS: dict[str, tuple[type[LightningModule], dict[str, Any]]] = {
    "cnn": (CNN, {"widths": (4, 8, 8), "hidden": 8}),
    "cnn-modern": (CNN, {"widths": (4, 8), "convolutions": 2, "batch_norm": True}),
    "vit": (ViT, {"patch": 8, "width": 16, "depth": 2, "heads": 2}),
    "vit-conv": (ViT, {"patch": 8, "width": 16, "depth": 2, "norm": "pre", "stem": "conv"}),
    "hybrid": (Hybrid, MAP),
    "dcgan": (DCGAN, PLAIN),
    "wgan": (WGANGP, PLAIN),
    "cgan": (CGAN, {**PLAIN, "condition": "embedding"}),
}
NORMS = nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm


def form(name: str, **changes: Any) -> Any:
    built, arguments = FORMS[name]
    return built(resolution=32, **{**arguments, **changes})


def counting(*shape: int) -> Tensor:
    """Tensor of 0, 1, 2 and so on."""
    return torch.arange(float(torch.Size(shape).numel())).view(shape)


def close(found: Tensor, expected: list[Any]) -> None:
    torch.testing.assert_close(found.detach(), torch.tensor(expected), atol=1e-5, rtol=1e-5)


def sines(rows: int, first: int) -> Tensor:
    return torch.sin(counting(rows, 4) + first)


class TestConvolutions:
    def test_stride_2_pads_more_below_and_on_the_right(self) -> None:
        # Conv2D(1, 5, 2, padding="same")
        layer = SameConv2d(1, 1, 5, stride=2)
        with torch.no_grad():
            layer.weight.copy_(counting(1, 1, 5, 5))
            layer.bias.zero_()
        close(layer(counting(1, 1, 4, 4))[0, 0], [[2220.0, 1604.0], [1030.0, 666.0]])

    def test_4_x_4_pads_symmetrically(self) -> None:
        # Conv2D(1, 4, 2, padding="same")
        expected = [[552.0, 588.0], [588.0, 552.0]]
        images, kernel = counting(1, 1, 4, 4), counting(1, 1, 4, 4)
        ours = next(m for m in form("cgan").discriminator if isinstance(m, nn.Conv2d))
        assert (ours.kernel_size, ours.stride) == ((4, 4), (2, 2))
        close(nn.functional.conv2d(images, kernel, None, ours.stride, ours.padding)[0, 0], expected)

    def test_transposed_crops_more_below_and_on_the_right(self) -> None:
        # Conv2DTranspose(1, 5, 2, padding="same")
        layer = SameConvTranspose2d(1, 1, 5, stride=2, bias=False)
        with torch.no_grad():
            layer.weight.copy_(counting(1, 1, 5, 5))
        expected = [[6.0, 17, 20, 23], [14, 38, 48, 58], [34, 88, 98, 108], [54, 138, 148, 158]]
        close(layer(1 + counting(1, 1, 2, 2))[0, 0], expected)

    def test_transposed_stride_1_crops_symmetrically(self) -> None:
        # Conv2DTranspose(1, 5, 1, padding="same"); the last layer of every generator.
        last = [m for m in form("wgan").generator if isinstance(m, nn.ConvTranspose2d)][-1]
        grown = nn.functional.conv_transpose2d(
            counting(1, 1, 4, 4), counting(1, 1, 5, 5), None, last.stride, last.padding
        )
        close(grown[0, 0, 0], [144.0, 254, 320, 306])
        close(grown[0, 0, 3], [1170.0, 1706, 1820, 1494])

    @pytest.mark.parametrize("name", ["dcgan", "wgan", "cgan"])
    def test_gans_use_these_layers(self, name: str) -> None:
        gan = form(name)
        convolutions = [m for m in gan.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        odd = [m for m in convolutions if m.kernel_size == (5, 5) and m.stride == (2, 2)]
        assert len(odd) == 5 + 2 * (name != "cgan")
        assert {type(m) for m in odd} <= {SameConv2d, SameConvTranspose2d}


class TestNorms:
    def test_batch_norm_of_features(self) -> None:
        # BatchNormalization()
        norm = KerasBatchNorm1d(2)
        values = torch.tensor([[0, 1], [1, 3], [2, 5], [5, 7.0]]) / 10
        expected = [[-1.0540925, -1.3284222], [-0.5270463, -0.4428073], [0, 0.4428076]]
        close(norm(values), [*expected, [1.5811387, 1.3284222]])
        close(norm.running_mean, [0.002, 0.004])
        close(norm.running_var, [0.9903500, 0.9905000])
        norm(values)
        close(norm.running_mean, [0.0039800, 0.0079600])
        close(norm.running_var, [0.9807965, 0.9810951])
        close(norm.eval()(values)[1:3], [[0.0969061, 0.2946902], [0.1978288, 0.4965051]])

    def test_batch_norm_of_maps(self) -> None:
        norm = KerasBatchNorm2d(2)
        values = (counting(2, 2, 2, 2).square() / 50).permute(0, 3, 1, 2)  # channels last, as Keras
        close(norm(values)[0, :, 0, 0], [-1.0488142, -1.1111947])
        close(norm.running_mean, [0.0140000, 0.0170000])
        close(norm.running_var, [1.0078080, 1.0128480])
        close(norm.eval()(values)[1, :, 1, 1], [3.8889108, 4.4522786])

    def test_layer_norm_of_small_numbers(self) -> None:
        # LayerNormalization()
        expected = [[-0.5443310, -0.2721655, 0.0, 0.8164966]]
        close(layer_norm(4, "keras")(torch.tensor([[0, 0.01, 0.02, 0.05]])), expected)

    def test_two_passes_before_a_gradient(self) -> None:
        norm, values = KerasBatchNorm2d(2), torch.rand(2, 2, 3, 3, requires_grad=True)
        (norm(values).square().sum() + norm(values).exp().sum()).backward()
        assert values.grad is not None

    def test_mean_over_all_batches_without_a_momentum(self) -> None:
        # The randomization of layers measures statistics in this way.
        norm = KerasBatchNorm1d(1)
        norm.momentum = None
        norm(torch.tensor([[1.0], [3.0]]))
        norm(torch.tensor([[0.0], [6.0]]))
        close(norm.running_mean, [2.5])
        close(norm.running_var, [5.0])

    @pytest.mark.parametrize("name", FORMS)
    def test_every_norm_of_a_thesis_form(self, name: str) -> None:
        norms = [m for m in form(name).modules() if isinstance(m, NORMS)]
        assert norms
        assert {m.eps for m in norms} == {1e-3}
        batch_norms = [m for m in norms if not isinstance(m, nn.LayerNorm)]
        assert {type(m) for m in batch_norms} <= {KerasBatchNorm1d, KerasBatchNorm2d}
        assert {m.momentum for m in batch_norms} <= {0.01}


def test_attention_with_the_same_weights() -> None:
    # MultiHeadAttention(2, 2)
    attention = Block(4, 2, 4, "post", 0.0, "keras").attention
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([sines(4, first) for first in range(3)]))
        attention.in_proj_bias.copy_(torch.cat([sines(1, 10 + n).flatten() for n in range(3)]))
        attention.out_proj.weight.copy_(sines(4, 3))
        attention.out_proj.bias.copy_(sines(1, 13).flatten())
    tokens = (counting(1, 3, 4) - 5) / 4
    expected = [
        [0.3222055, 0.0567548, 1.9690629, -1.0780685],
        [0.1407657, 0.3970562, 1.7056310, -1.0739889],
        [-0.8115094, 1.2912008, 1.4890025, -1.6849375],
    ]
    close(attention(tokens, tokens, tokens)[0][0], expected)


class TestInitialWeights:
    @pytest.mark.parametrize("again", [False, True], ids=["built", "glorot"])
    def test_attention(self, again: bool) -> None:
        # MultiHeadAttention(4, 64) on 256 numbers: kernels (256, 4, 64) and (4, 64, 256).
        torch.manual_seed(0)
        attention = KerasAttention(256, 4)
        if again:
            attention.apply(glorot)
        for weight in attention.in_proj_weight.chunk(3):
            assert 0.0184 < float(weight.detach().abs().max()) <= 0.0185653
        assert 0.068 < float(attention.out_proj.weight.detach().abs().max()) <= 0.0684654
        assert not attention.in_proj_bias.any()
        assert not attention.out_proj.bias.any()

    def test_class_token_and_positions(self) -> None:
        # add_weight(shape=(1, 1, 256)) and add_weight(shape=(1, 197, 256))
        torch.manual_seed(0)
        encoder = ViT(depth=1).encoder
        assert 0.145 < float(encoder.cls_token.detach().abs().max()) <= 0.1527950
        assert 0.1145 < float(encoder.positions.detach().abs().max()) <= 0.1150871

    @pytest.mark.parametrize("stride", [4, 2])
    def test_patches_of_a_map_are_projected_by_a_dense_layer(self, stride: int) -> None:
        # Dense(16) on 8 * 4 * 4 numbers
        torch.manual_seed(0)
        embed = Hybrid(resolution=64, **{**MAP, "patch": 4, "stride": stride, "dropout": 0.0}).embed
        limit = (6 / (8 * 4 * 4 + 16)) ** 0.5
        assert 0.98 * limit < float(embed.weight.detach().abs().max()) <= limit

    def test_embedding(self) -> None:
        weight = Embedded("keras").weight.detach()
        assert 0.04 < float(weight.abs().max()) <= 0.05

    @pytest.mark.parametrize("name", ["cnn", "dcgan"])
    def test_kernels_and_biases(self, name: str) -> None:
        layers = [
            m
            for m in form(name).modules()
            if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        ]
        for layer in layers:
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
            limit = (6 / (fan_in + fan_out)) ** 0.5
            assert 0.9 * limit < float(layer.weight.detach().abs().max()) <= limit
            assert not layer.bias.any()


# Adam(1e-4, beta1) after gradients g, 2 g and 3 g
STEPS = {
    0.9: [
        [-2.4025147e-05, -9.693401e-05, 9.999902e-05],
        [-6.400155e-05, -1.9210519e-04, 1.9651611e-04],
        [-1.1591610e-04, -2.8710192e-04, 2.9231579e-04],
    ],
    0.5: [
        [-2.4025152e-05, -9.693403e-05, 9.999904e-05],
        [-6.767756e-05, -2.0085661e-04, 2.0539129e-04],
        [-1.2858167e-04, -3.1230302e-04, 3.1777972e-04],
    ],
}


class TestAdam:
    @pytest.mark.parametrize("beta1", STEPS)
    def test_steps(self, beta1: float) -> None:
        weight = nn.Parameter(torch.zeros(3))
        optimizer = KerasAdam([weight], lr=1e-4, betas=(beta1, 0.999), fused=True)
        for number, expected in enumerate(STEPS[beta1], start=1):
            weight.grad = number * torch.tensor([1e-6, 1e-4, -1.0])
            optimizer.step()
            torch.testing.assert_close(
                weight.detach(), torch.tensor(expected), rtol=1e-5, atol=1e-10
            )
            # The next steps are taken by another optimizer, as after resuming.
            saved, optimizer = optimizer.state_dict(), KerasAdam([weight], lr=1.0, fused=True)
            optimizer.load_state_dict(saved)

    @pytest.mark.parametrize("name", FORMS)
    @pytest.mark.parametrize(("stack", "kind"), [("keras", KerasAdam), ("torch", torch.optim.Adam)])
    def test_forms_have_the_optimizer_of_their_stack(
        self, name: str, stack: str, kind: type
    ) -> None:
        optimizers = form(name, stack=stack).configure_optimizers()
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            assert type(optimizer) is kind
            assert all(group["weight_decay"] == 0 for group in optimizer.param_groups)


LOSSES = [1.0, 0.9, 0.89995, 0.9, 0.91, 0.92, 0.5, 0.50005, 0.6, 0.6, 0.6, 0.6, 0.6]


@pytest.mark.parametrize(
    ("stack", "falls"),
    # Keras's ReduceLROnPlateau(factor=0.2, patience=2), and PyTorch's
    [("keras", [3, 5, 8, 10, 12]), ("torch", [4, 9, 12])],
)
def test_plateau_falls_in_the_same_epochs(stack: Any, falls: list[int]) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    plateau = plateau_of(Optim(schedule="plateau", plateau_patience=2), optimizer, stack)
    assert plateau is not None
    rates = [1e-3]
    for loss in LOSSES:
        plateau.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert [epoch for epoch in range(len(LOSSES)) if rates[epoch + 1] < rates[epoch]] == falls
    assert rates[-1] == pytest.approx(1e-3 * 0.2 ** len(falls))


def test_keras_plateau_needs_an_improvement_of_1e_4() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    optim = Optim(schedule="plateau", plateau_factor=0.5, plateau_patience=1)
    plateau = plateau_of(optim, optimizer, "keras")
    assert plateau is not None
    for loss, rate in [(0.01, 1.0), (0.00995, 0.5), (0.00985, 0.5)]:
        plateau.step(loss)
        assert optimizer.param_groups[0]["lr"] == rate


def test_activations() -> None:
    # Dense(activation="gelu"), LeakyReLU()
    gelus = [m for m in form("hybrid").modules() if isinstance(m, nn.GELU)]
    assert len(gelus) == 4
    for gelu in gelus:
        close(gelu(torch.tensor([-1.0, 0.5, 2.0])), [-0.1586553, 0.3457312, 1.9544997])
    slopes = {
        name: {m.slope for m in form(name).modules() if isinstance(m, LeakyReLU)}
        | {m.negative_slope for m in form(name).modules() if isinstance(m, nn.LeakyReLU)}
        for name in ("dcgan", "wgan", "cgan")
    }
    assert slopes == {"dcgan": {0.3}, "wgan": {0.3}, "cgan": {0.2, 0.3}}


@pytest.mark.parametrize("name", FORMS)
def test_weights_of_both_stacks_have_the_same_names(name: str) -> None:
    keras, own = (form(name, stack=stack).state_dict() for stack in ("keras", "torch"))
    assert {key: value.shape for key, value in keras.items()} == {
        key: value.shape for key, value in own.items()
    }


class TestOlderCheckpoints:
    """Checkpoints written before the setting ``stack`` existed."""

    def save_without_stack(self, module: LightningModule, path: Path) -> None:
        trainer = Trainer(logger=False, accelerator="cpu", default_root_dir=path.parent)
        trainer.strategy.connect(module)
        trainer.save_checkpoint(path)
        values = torch.load(path, weights_only=True)
        del values["hyper_parameters"]["stack"]
        torch.save(values, path)

    def test_classifier(self, tmp_path: Path) -> None:
        fitted, path = form("hybrid", stack="torch"), tmp_path / "checkpoints/best.ckpt"
        path.parent.mkdir()
        fitted.stamp |= {"settings": "0"}
        self.save_without_stack(fitted, path)
        record: Any = SimpleNamespace(fingerprint="0", data={}, versions={})
        cfg = OmegaConf.create({"model": {"_target_": "leuk.classifiers.hybrid.Hybrid"}})
        again, images = FinishedRun(tmp_path, record, cfg).classifier(), torch.rand(2, 3, 32, 32)
        assert torch.equal(again(images), fitted.eval()(images))

    def test_gan(self, tmp_path: Path) -> None:
        fitted = form("dcgan", stack="torch")
        self.save_without_stack(fitted, tmp_path / "gan.ckpt")
        cfg = OmegaConf.create({"gan": {"_target_": "leuk.gans.dcgan.DCGAN"}})
        again = load_gan(cfg, tmp_path)
        assert (again.sample(2, Label.HEM, 0) == fitted.sample(2, Label.HEM, 0)).all()

    def test_newer_checkpoints_keep_their_stack(self) -> None:
        assert older_arguments(CNN, {"hyper_parameters": {"stack": "keras"}}) == {}
        assert older_arguments(LightningModule, {}) == {}
