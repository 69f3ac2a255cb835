from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from small_classifiers import follows_keras, parameters
from small_gans import FORMS, STRONG, fit, small
from torch import nn

from leuk.config import conf_dir
from leuk.config.schema import register
from leuk.config.targets import instantiate
from leuk.data.labels import Label
from leuk.errors import ConfigError
from leuk.gans.cgan import CGAN
from leuk.gans.dcgan import DCGAN
from leuk.gans.layers import LeakyReLU, to_uint8
from leuk.gans.wgan import WGANGP
from leuk.runs.run import register_resolvers


@pytest.mark.parametrize(
    ("form", "arguments", "generator", "adversary", "steps"),
    [
        (DCGAN, {}, 3_939_491, 611_201, (1, 1)),
        (WGANGP, {}, 3_945_187, 611_201, (1, 5)),
        (CGAN, {}, 3_945_187 + 2 * 6272, 11_197_377, (2, 1)),
        (CGAN, {"condition": "embedding"}, 4_258_887, 11_197_377, (2, 1)),
    ],
)
def test_gans_without_arguments_are_the_thesis_forms(
    form: Any, arguments: dict[str, str], generator: int, adversary: int, steps: tuple[int, int]
) -> None:
    gan = form(**arguments)
    assert parameters(gan.generator) == generator
    assert parameters(gan.adversary) == adversary
    assert (gan.fitting.generator_steps, gan.fitting.adversary_steps) == steps
    labels = torch.tensor([0, 1])
    with torch.no_grad():
        images = gan.generate(gan.noise(2), labels)
    assert images.shape == (2, 3, 224, 224)
    assert gan.score(images, labels).shape == (2, 1)


def test_layers_of_the_thesis_form() -> None:
    """DCGAN normalizes 128 channels after each ReLU, WGAN-GP all 6,272 features before."""
    norms = [m for m in DCGAN().generator.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == [128, 128, 64, 64, 32, 32]
    (first,) = [m for m in WGANGP().generator.modules() if isinstance(m, nn.BatchNorm1d)]
    assert first.num_features == 6272


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("resolution", [32, 64, 96])
def test_any_multiple_of_32(name: str, resolution: int) -> None:
    images = small(name, resolution=resolution).sample(3, Label.HEM, seed=0)
    assert images.shape == (3, resolution, resolution, 3)
    assert images.dtype == np.uint8


@pytest.mark.parametrize("name", FORMS)
def test_other_resolutions_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.resolution=48: .* multiple of 32, such as 64"):
        small(name, resolution=48)


@pytest.mark.parametrize("name", FORMS)
def test_sampling_depends_only_on_its_seed(name: str) -> None:
    gan = small(name)
    first = gan.sample(5, Label.HEM, seed=1)
    torch.manual_seed(99)
    np.testing.assert_array_equal(gan.sample(5, Label.HEM, seed=1), first)
    assert not np.array_equal(gan.sample(5, Label.HEM, seed=2), first)


@pytest.mark.parametrize("name", FORMS)
def test_an_image_does_not_depend_on_how_many_are_sampled(name: str) -> None:
    """Batch normalization uses its running statistics, not those of the batch."""
    gan = small(name)
    few, many = (gan.sample(count, Label.HEM, seed=1) for count in (4, 8))
    np.testing.assert_allclose(few.astype(int), many[:4].astype(int), atol=1)
    assert gan.training


def test_converter_and_its_inverse_lose_nothing() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    unit = pixels.permute(0, 3, 1, 2) / 255
    assert torch.equal(to_uint8(unit * 2 - 1), pixels)


@pytest.mark.parametrize("value", [1.01, -1.5, float("nan"), 200.0])
def test_converter_refuses_other_ranges(value: float) -> None:
    images = torch.zeros(1, 3, 4, 4)
    images[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"images must be in \[-1, 1\]"):
        to_uint8(images)


class TestLeakyReLU:
    @pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_drops_its_share_and_keeps_the_mean(
        self, share: float, layout: torch.memory_format
    ) -> None:
        torch.manual_seed(0)
        values = torch.ones(16, 8, 33, 31).contiguous(memory_format=layout)
        dropped = LeakyReLU(1.0, share)(values)
        assert dropped.is_contiguous(memory_format=layout)
        assert float((dropped == 0).float().mean()) == pytest.approx(share, abs=0.01)
        assert float(dropped.mean()) == pytest.approx(1, abs=0.02)
        assert len(dropped.unique()) == 2
        neighbors = torch.corrcoef(
            torch.stack([dropped[..., 1:].ravel(), dropped[..., :-1].ravel()])
        )
        assert abs(float(neighbors[0, 1])) < 0.02

    def test_other_memory_layouts_use_torch(self) -> None:
        values = torch.ones(400, 200)[:, ::2]
        assert float((LeakyReLU(1.0, 0.5)(values) == 0).float().mean()) == pytest.approx(
            0.5, abs=0.02
        )

    def test_equals_torch_without_dropout_up_to_the_second_derivative(self) -> None:
        found = []
        for layer in (LeakyReLU(0.2, 0.5).eval(), nn.LeakyReLU(0.2)):
            torch.manual_seed(0)
            network = nn.Sequential(nn.Linear(3, 4), layer, nn.Linear(4, 1))
            points = torch.randn(5, 3, requires_grad=True)
            (slope,) = torch.autograd.grad(network(points).sum(), points, create_graph=True)
            slope.square().sum().backward()
            found.append([slope, network[0].weight.grad, network[2].weight.grad])
        torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", FORMS)
def test_config_of_every_recipe_builds_its_form(
    name: str,
) -> None:
    register()
    register_resolvers()
    for form in ("thesis", "small", "strong"):
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("synthesize", [f"gan={name}", f"recipe={form}"], return_hydra_config=True)
        with torch.device("meta"):
            gan: Any = instantiate(cfg.gan)
        assert gan.stack == gan.hparams["stack"] == ("keras" if form == "thesis" else "torch")
        assert follows_keras(gan) == (form == "thesis")
        assert gan.hparams["resolution"] == cfg.data.resolution
        assert (gan.averaged is not None) == (form == "strong")
        if form == "thesis":
            assert gan.hparams == FORMS[name]().hparams
            assert cfg.gan_fit.batch_size == 32
            assert cfg.gan_fit.epochs == {"dcgan": 225, "wgan": 200, "cgan": 250}[name]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("form", [{}, STRONG], ids=["plain", "strong"])
def test_checkpoint_is_plain_and_samples_the_same_images(
    name: str, form: dict[str, object], tmp_path: Path
) -> None:
    gan = small(name, **form)
    fit(gan, tmp_path, epochs=1).save_checkpoint(tmp_path / "gan.ckpt", weights_only=True)
    again = type(gan).load_from_checkpoint(tmp_path / "gan.ckpt", weights_only=True)
    assert again.hparams == gan.hparams
    images = gan.sample(4, Label.HEM, seed=0)
    np.testing.assert_array_equal(again.sample(4, Label.HEM, seed=0), images)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("networks", "widths"), [("plain", (8,) * 4), ("strong", (8,) * 5)])
def test_wrong_number_of_widths_is_refused(
    name: str, networks: str, widths: tuple[int, ...]
) -> None:
    with pytest.raises(ConfigError, match=r"gan\.widths=.*: this generator takes [45] numbers"):
        FORMS[name](resolution=32, networks=networks, widths=widths)
