from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from leuk.data.bank import PixelBank
from leuk.data.datamodule import CellBatches
from leuk.data.labels import Label
from leuk.errors import ConfigError
from leuk.gans.adversarial import Adversarial
from leuk.gans.blocks import Dropout, from_unit, to_uint8
from leuk.gans.dcgan import DCGAN

FORMS = {"dcgan": DCGAN}


def small(name: str, **changes: object) -> Adversarial:
    arguments = {"resolution": 32, "latent": 8, "first": 8, "widths": (8, 8, 8, 8, 8), **changes}
    return FORMS[name](**arguments)  # type: ignore[arg-type]


def fit(gan: Adversarial, tmp_path: Path, epochs: int = 2, cells: int = 16) -> Trainer:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (cells, 32, 32, 3), np.uint8)
    bank = PixelBank([pixels], np.zeros(cells, np.int64))
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(gan, datamodule=CellBatches(bank, np.arange(cells), batch_size=4))
    return trainer


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_dcgan_without_arguments_is_the_thesis_form() -> None:
    gan = DCGAN()
    assert parameters(gan.generator) == 3_939_491
    assert parameters(gan.discriminator) == 611_201
    batch_norms = [m for m in gan.generator.modules() if isinstance(m, nn.BatchNorm2d)]
    relus = [m for m in gan.generator.modules() if isinstance(m, nn.ReLU)]
    assert (len(batch_norms), len(relus)) == (6, 5)
    with torch.no_grad():
        images = gan.generator(torch.randn(2, 500))
    assert images.shape == (2, 3, 224, 224)
    assert gan.discriminator(images).shape == (2, 1)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("resolution", [32, 64, 96])
def test_any_multiple_of_32(name: str, resolution: int) -> None:
    made = small(name, resolution=resolution).sample(3, Label.HEM, seed=0)
    assert made.shape == (3, resolution, resolution, 3)
    assert made.dtype == np.uint8


@pytest.mark.parametrize("name", FORMS)
def test_other_resolutions_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.resolution=48: .* multiple of 32, such as 64"):
        small(name, resolution=48)


@pytest.mark.parametrize("name", FORMS)
def test_sampling_depends_on_its_seed_alone(name: str) -> None:
    gan = small(name)
    first = gan.sample(5, Label.HEM, seed=1)
    torch.manual_seed(99)
    np.testing.assert_array_equal(gan.sample(5, Label.HEM, seed=1), first)
    assert not np.array_equal(gan.sample(5, Label.HEM, seed=2), first)


@pytest.mark.parametrize("name", FORMS)
def test_budget_counts_generator_updates(name: str, tmp_path: Path) -> None:
    gan = small(name, updates=3)
    trainer = fit(gan, tmp_path, epochs=100)
    assert gan.done_updates == 3
    assert trainer.global_step > 3  # what Lightning counts: every optimizer's steps


@pytest.mark.parametrize("name", FORMS)
def test_both_networks_learn(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    gan = small(name)
    before = {key: value.clone() for key, value in gan.state_dict().items()}
    fit(gan, tmp_path)
    after = gan.state_dict()
    for part in ("generator", "discriminator"):
        changed = [k for k in before if k.startswith(part) and not torch.equal(before[k], after[k])]
        assert changed


def test_discriminator_gradients_are_clipped_by_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest: list[float] = []
    gan = small("dcgan", clip=1e-6)
    step = torch.optim.Adam.step

    def spy(self: torch.optim.Adam, *args: object, **kwargs: object) -> object:
        held = {id(p) for group in self.param_groups for p in group["params"]}
        if {id(p) for p in gan.discriminator.parameters()} == held:
            largest.append(max(float(p.grad.abs().max()) for p in gan.discriminator.parameters()))
        return step(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    fit(gan, tmp_path, epochs=1)
    assert largest
    assert max(largest) <= 1e-6


def test_converter_covers_the_range() -> None:
    images = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    assert to_uint8(images)[:, 0, 0, 0].tolist() == [0, 128, 255]


def test_converter_and_its_inverse_lose_nothing() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    unit = pixels.permute(0, 3, 1, 2) / 255
    assert torch.equal(to_uint8(from_unit(unit)), pixels)


@pytest.mark.parametrize("value", [1.01, -1.5, float("nan"), 200.0])
def test_converter_refuses_other_ranges(value: float) -> None:
    images = torch.zeros(1, 3, 4, 4)
    images[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"images must lie in \[-1, 1\]"):
        to_uint8(images)


class TestDropout:
    @pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_drops_its_share_and_keeps_the_mean(
        self, share: float, layout: torch.memory_format
    ) -> None:
        torch.manual_seed(0)
        values = torch.ones(16, 8, 33, 31).contiguous(memory_format=layout)
        dropped = Dropout(share)(values)
        assert dropped.is_contiguous(memory_format=layout)
        assert float((dropped == 0).float().mean()) == pytest.approx(share, abs=0.01)
        assert float(dropped.mean()) == pytest.approx(1, abs=0.02)
        assert len(dropped.unique()) == 2
        neighbours = torch.corrcoef(
            torch.stack([dropped[..., 1:].ravel(), dropped[..., :-1].ravel()])
        )
        assert abs(float(neighbours[0, 1])) < 0.02

    def test_other_layouts_are_torch_s(self) -> None:
        values = torch.ones(400, 200)[:, ::2]
        assert float((Dropout(0.5)(values) == 0).float().mean()) == pytest.approx(0.5, abs=0.02)

    def test_gradient_passes_where_the_value_did(self) -> None:
        values = torch.randn(64, 64, requires_grad=True)
        dropped = Dropout(0.5)(values)
        dropped.sum().backward()
        assert values.grad is not None
        assert torch.equal(values.grad != 0, dropped != 0)

    def test_seeded(self) -> None:
        results = []
        for _ in range(2):
            torch.manual_seed(1)
            results.append(Dropout(0.5)(torch.ones(999)))
        assert torch.equal(*results)

    def test_does_nothing_when_judging(self) -> None:
        values = torch.ones(10)
        assert Dropout(0.5).eval()(values) is values
        assert Dropout(0.0)(values) is values
