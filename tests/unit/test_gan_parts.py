"""Penalties, augmentation, averaging and the layers of the strong forms."""

import pytest
import torch
from small_gans import small
from torch import nn

from leuk.errors import ConfigError
from leuk.gans.cgan import OneHot, ProjectionDiscriminator
from leuk.gans.dcgan import DCGAN
from leuk.gans.diffaugment import DiffAugment, shifted, turned
from leuk.gans.layers import LeakyReLU
from leuk.gans.penalties import gradient_penalty, r1_penalty
from leuk.gans.strong import MinibatchSpread, PixelNoise, StrongDiscriminator, StrongGenerator


def linear_critic(weight: torch.Tensor) -> nn.Module:
    critic = nn.Sequential(nn.Flatten(), nn.Linear(weight.numel(), 1, bias=False))
    critic[1].weight.data = weight.view(1, -1)
    return critic


class TestPenalties:
    """The gradient of a linear critic is its weight, so the penalties can be computed by hand."""

    weight = torch.full((12,), 0.3 + 1e-4)  # bfloat16 would round it

    @pytest.mark.parametrize("autocast", [False, True])
    def test_gradient_penalty_by_hand(self, autocast: bool) -> None:
        critic = linear_critic(self.weight)
        real, synthetic = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            penalty = gradient_penalty(critic, real, synthetic, torch.rand(4, 1, 1, 1))
        norm = (12 * (0.3 + 1e-4) ** 2) ** 0.5
        assert penalty.dtype == torch.float32
        assert float(penalty) == pytest.approx((norm - 1) ** 2, rel=1e-5)

    @pytest.mark.parametrize("autocast", [False, True])
    def test_r1_by_hand(self, autocast: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            penalty = r1_penalty(linear_critic(self.weight), torch.randn(4, 3, 2, 2))
        assert float(penalty) == pytest.approx(12 * (0.3 + 1e-4) ** 2 / 2, rel=1e-5)

    def test_penalty_is_computed_between_real_and_synthetic(self) -> None:
        """The gradient of the score |x|^2 / 2 is the image itself, so its norm shows the point."""

        def critic(images: torch.Tensor) -> torch.Tensor:
            return images.square().sum(dim=(1, 2, 3)).div(2).unsqueeze(1)

        real, synthetic = torch.full((1, 3, 1, 1), 2.0), torch.zeros(1, 3, 1, 1)
        penalty = gradient_penalty(critic, real, synthetic, torch.full((1, 1, 1, 1), 0.25))
        assert float(penalty) == pytest.approx((0.5 * 3**0.5 - 1) ** 2)


class TestDiffAugment:
    def test_eight_turns_are_the_eight_symmetries(self) -> None:
        image = torch.arange(9.0).view(1, 1, 3, 3)
        found = turned(image.expand(8, 1, 3, 3), torch.arange(8))
        by_hand = {
            tuple(torch.rot90(flipped, quarter, (2, 3)).flatten().tolist())
            for flipped in (image, image.flip(3))
            for quarter in range(4)
        }
        assert {tuple(view.flatten().tolist()) for view in found} == by_hand

    def test_shift_moves_black_in(self) -> None:
        image = torch.ones(2, 3, 4, 4)
        moved = shifted(image, torch.tensor([[1, -2], [0, 3]]))
        assert (moved[0, :, 0] == -1).all()
        assert (moved[0, :, 1:] == 1).all()
        assert (moved[1, :, :2, 3] == 1).all()
        assert int((moved[1] == 1).sum()) == 3 * 2

    def test_each_image_is_shifted_separately(self) -> None:
        torch.manual_seed(0)
        image = torch.rand(1, 3, 16, 16) * 2 - 1
        seen = DiffAugment(shift=0.1)(image.expand(32, -1, -1, -1))
        assert len({view.sum(dim=0).flatten().argmax().item() for view in seen}) > 8
        assert float(seen.max()) <= 1

    def test_all_eight_turns_are_drawn(self) -> None:
        torch.manual_seed(0)
        image = torch.linspace(-1, 1, 3 * 16).view(1, 3, 4, 4)
        seen = DiffAugment()(image.expand(128, -1, -1, -1))
        assert len(seen.flatten(1).unique(dim=0)) == 8

    def test_stains_are_of_each_image_and_color(self) -> None:
        """Zero is half of the way from black to white: a gain of 0.7 to 1.3 gives -0.3 to 0.3."""
        torch.manual_seed(0)
        seen = DiffAugment(turns=False, stain=0.3)(torch.zeros(64, 3, 2, 2))
        assert len(seen[:, :, 0, 0].unique()) == 64 * 3
        assert -0.3 <= float(seen.min()) < -0.2
        assert 0.2 < float(seen.max()) <= 0.3


class TestPixelNoise:
    def test_starts_at_a_tenth_with_one_number_per_pixel_of_each_image(self) -> None:
        torch.manual_seed(0)
        noise = PixelNoise(3)(torch.zeros(4, 3, 32, 32))
        assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
        assert torch.equal(noise[:, 0], noise[:, 2])
        assert not torch.equal(noise[0], noise[1])


class TestConditionedNetworks:
    def test_one_hot_is_one_at_the_class(self) -> None:
        assert OneHot()(torch.tensor([0, 1])).tolist() == [[1, 0], [0, 1]]

    def test_projection_adds_the_product_of_features_and_class(self) -> None:
        torch.manual_seed(0)
        network = ProjectionDiscriminator(32, (4, 8))
        images = torch.randn(3, 3, 32, 32)
        features = network.features(images)
        for label in (0, 1):
            expected = features @ (network.score.weight[0] + network.classes.weight[label])
            scores = network(images, torch.full((3,), label))
            torch.testing.assert_close(scores[:, 0], expected + network.score.bias)


class TestDiscriminators:
    @pytest.mark.parametrize(("name", "slope"), [("dcgan", 0.3), ("wgan", 0.3), ("cgan", 0.2)])
    def test_slopes_below_zero_are_the_thesis_s(self, name: str, slope: float) -> None:
        layers = [m for m in small(name).adversary.modules() if isinstance(m, LeakyReLU)]
        assert [layer.slope for layer in layers] == [slope] * 2

    def test_detail_is_what_a_mean_of_nine_leaves_times_eight(self) -> None:
        """White on black: 2 - 2 / 9 at the pixel and -2 / 9 around it; black to the border."""
        network = StrongDiscriminator(32, (4, 8), spread=False)
        inputs: list[torch.Tensor] = []
        network.body.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        image = torch.full((1, 3, 32, 32), -1.0)
        image[..., 10, 10] = 1
        network(image)
        expected = torch.zeros(32, 32)
        expected[9:12, 9:12] = -8 * 2 / 9
        expected[10, 10] += 8 * 2
        torch.testing.assert_close(inputs[0][:, :3], image)
        torch.testing.assert_close(inputs[0][0, 3:], expected.expand(3, -1, -1))


class TestMinibatchSpread:
    def test_distinguishes_equal_from_different_images(self) -> None:
        same = MinibatchSpread()(torch.ones(8, 4, 2, 2))
        other = MinibatchSpread()(torch.randn(8, 4, 2, 2))
        assert same.shape == (8, 5, 2, 2)
        assert float(same[:, 4].max()) < 1e-3 < float(other[:, 4].min())

    @pytest.mark.parametrize(("alone", "passes"), [(False, True), (True, False)])
    def test_alone_keeps_gradients_apart(self, alone: bool, passes: bool) -> None:
        torch.manual_seed(0)
        network = StrongDiscriminator(32, (4, 8), spread=True)
        images = torch.randn(4, 3, 32, 32, requires_grad=True)
        network(images, alone=alone)[0].sum().backward()
        assert images.grad is not None
        assert bool((images.grad[1:] != 0).any()) is passes


class TestCellGenerator:
    @pytest.mark.parametrize("resolution", [32, 96])
    def test_black_is_reached_where_the_mask_is_closed(self, resolution: int) -> None:
        network = StrongGenerator(resolution, 8, 8, (8, 8, 8, 8)).eval()
        torch.nn.init.constant_(network.head.bias[3:], -50.0)
        images = network(torch.randn(2, 8))
        assert images.shape == (2, 3, resolution, resolution)
        torch.testing.assert_close(images, torch.full_like(images, -1))

    def test_weights_start_with_a_deviation_of_a_fiftieth(self) -> None:
        torch.manual_seed(0)
        network = StrongGenerator(32, 64, 32, (32, 32, 32, 32))
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(layers) == 6
        for layer in layers:
            assert float(layer.weight.std()) == pytest.approx(0.02, rel=0.1)
            assert layer.bias is None or not layer.bias.any()


def test_strong_networks_choose_channels_that_fit_the_resolution() -> None:
    def channels(network: nn.Module) -> list[int]:
        return [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]

    for side, generator, adversary in (
        (32, [64, 48, 24, 24], [32, 64, 128]),
        (64, [128, 96, 48, 32], [32, 64, 128, 256]),
    ):
        assert channels(StrongGenerator(side, 8, None, None))[:-1] == generator
        assert channels(StrongDiscriminator(side, None, spread=True))[:-1] == adversary
    with pytest.raises(ConfigError, match=r"null: plain networks need numbers"):
        DCGAN(resolution=32, widths=None)
