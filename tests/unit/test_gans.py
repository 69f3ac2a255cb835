import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch._inductor.config as inductor
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from leuk.config import conf_dir
from leuk.config.schema import register
from leuk.config.targets import instantiate
from leuk.data.bank import PixelBank
from leuk.data.datamodule import CellBatches
from leuk.data.labels import Label
from leuk.errors import ConfigError, TrainingError
from leuk.gans.adversarial import Adversarial, Fitting
from leuk.gans.blocks import LeakyReLU, from_unit, to_uint8
from leuk.gans.cgan import CGAN
from leuk.gans.dcgan import DCGAN
from leuk.gans.diffaugment import DiffAugment
from leuk.gans.wgan import WGANGP
from leuk.runs.identity import register_resolvers

FORMS = {"dcgan": DCGAN, "wgan": WGANGP, "cgan": CGAN}


def small(name: str, **changes: object) -> Adversarial:
    arguments = {
        "resolution": 32,
        "latent": 8,
        "first": 8,
        "widths": (8,) * (4 if changes.get("networks") == "cell" else 5),
        "opponent_widths": (8, 8),
        **changes,
    }
    return FORMS[name](**arguments)  # type: ignore[arg-type]


def fit(
    gan: Adversarial,
    tmp_path: Path | str,
    epochs: int = 2,
    pixels: npt.NDArray[np.uint8] | None = None,
    labels: npt.NDArray[np.int64] | None = None,
    resume: Path | None = None,
    callbacks: Sequence[Callback] = (),
    **arguments: Any,
) -> Trainer:
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3), np.uint8)
    count = len(pixels)
    bank = PixelBank([pixels], np.arange(count) % 2 if labels is None else labels)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **arguments,
    )
    batches = CellBatches(bank, np.arange(count), batch_size=4)
    trainer.fit(gan, datamodule=batches, ckpt_path=resume, weights_only=True)
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
    gan = small(name, fitting=Fitting(updates=3))
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
    for part in ("generator", gan.OPPONENT):
        changed = [k for k in before if k.startswith(part) and not torch.equal(before[k], after[k])]
        assert changed


def test_discriminator_gradients_are_clipped_by_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest: list[float] = []
    gan = small("dcgan", fitting=Fitting(clip=1e-6))
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
        neighbours = torch.corrcoef(
            torch.stack([dropped[..., 1:].ravel(), dropped[..., :-1].ravel()])
        )
        assert abs(float(neighbours[0, 1])) < 0.02

    def test_other_layouts_are_torch_s(self) -> None:
        values = torch.ones(400, 200)[:, ::2]
        assert float((LeakyReLU(1.0, 0.5)(values) == 0).float().mean()) == pytest.approx(
            0.5, abs=0.02
        )

    def test_gradient_passes_where_the_value_did(self) -> None:
        values = torch.randn(64, 64, requires_grad=True)
        dropped = LeakyReLU(1.0, 0.5)(values)
        dropped.sum().backward()
        assert values.grad is not None
        assert torch.equal(values.grad != 0, dropped != 0)

    def test_seeded(self) -> None:
        results = []
        for _ in range(2):
            torch.manual_seed(1)
            results.append(LeakyReLU(1.0, 0.5)(torch.ones(999)))
        assert torch.equal(*results)

    def test_drops_nothing_when_judging(self) -> None:
        values = torch.randn(10)
        torch.testing.assert_close(
            LeakyReLU(0.3, 0.5).eval()(values), nn.functional.leaky_relu(values, 0.3)
        )

    def test_is_torch_s_without_dropout_to_the_second_derivative(self) -> None:
        found = []
        for layer in (LeakyReLU(0.2), nn.LeakyReLU(0.2)):
            torch.manual_seed(0)
            network = nn.Sequential(nn.Linear(3, 4), layer, nn.Linear(4, 1))
            points = torch.randn(5, 3, requires_grad=True)
            (slope,) = torch.autograd.grad(network(points).sum(), points, create_graph=True)
            slope.square().sum().backward()
            found.append([slope, network[0].weight.grad, network[2].weight.grad])
        torch.testing.assert_close(*found)


def test_wgan_without_arguments_is_the_thesis_form() -> None:
    gan = WGANGP()
    assert parameters(gan.generator) == 3_945_187
    assert parameters(gan.critic) == 611_201
    assert (gan.penalty, gan.fitting.opponent_steps) == (10, 5)
    assert any(m.num_features == 6272 for m in gan.modules() if isinstance(m, nn.BatchNorm1d))


def test_cgan_without_arguments_is_the_thesis_form() -> None:
    gan = CGAN()
    assert parameters(gan.generator) == 3_945_187 + 2 * 6272
    assert parameters(gan.discriminator) == 11_197_377
    assert gan.fitting.generator_steps == 2
    assert parameters(CGAN(condition="embedding").generator) == 4_258_887


STRONG = {"networks": "cell", "fitting": Fitting(average=0.9), "augment": DiffAugment(shift=0.1)}


@pytest.mark.parametrize("name", FORMS)
def test_every_config_form_is_what_its_file_says(name: str) -> None:
    register()
    register_resolvers()
    for form in ("thesis", "small", "strong"):
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("synthesize", [f"gan={name}", f"recipe={form}"], return_hydra_config=True)
        gan: Adversarial = instantiate(cfg.gan)
        assert gan.resolution == cfg.data.resolution
        assert (gan.averaged is not None) == (form == "strong")
        if form == "thesis":
            assert gan.hparams == FORMS[name]().hparams
            assert cfg.gan_fit.batch_size == 32
            assert cfg.gan_fit.epochs == {"dcgan": 225, "wgan": 200, "cgan": 250}[name]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("form", [{}, STRONG], ids=["plain", "cell"])
def test_checkpoint_is_plain_and_makes_the_same_cells(
    name: str, form: dict[str, object], tmp_path: Path
) -> None:
    gan = small(name, **form)
    fit(gan, tmp_path, epochs=1).save_checkpoint(tmp_path / "gan.ckpt", weights_only=True)
    again = type(gan).load_from_checkpoint(tmp_path / "gan.ckpt", weights_only=True)
    assert again.hparams == gan.hparams
    cells = gan.sample(4, Label.HEM, seed=0)
    np.testing.assert_array_equal(again.sample(4, Label.HEM, seed=0), cells)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("form", [{}, STRONG], ids=["plain", "cell"])
def test_resumed_it_ends_with_the_weights_of_an_unbroken_run(
    name: str, form: dict[str, object], tmp_path: Path
) -> None:
    """Three epochs at once, or one and then two more from its checkpoint, in another mood."""
    weights = []
    for broken in (False, True):
        torch.manual_seed(5)
        gan = small(name, dropout=0.3, r1=1.0, **form) if name != "wgan" else small(name, **form)
        if broken:
            fit(gan, tmp_path, epochs=1).save_checkpoint(tmp_path / "half.ckpt")
            torch.manual_seed(5)
            gan = (
                small(name, dropout=0.3, r1=1.0, **form) if name != "wgan" else small(name, **form)
            )
            torch.manual_seed(5)
            torch.randn(99)
            fit(gan, tmp_path, epochs=3, resume=tmp_path / "half.ckpt")
        else:
            fit(gan, tmp_path, epochs=3)
        weights.append((gan.done_updates, gan.state_dict()))
    assert weights[0][0] == weights[1][0]
    for key, value in weights[0][1].items():
        assert torch.equal(value, weights[1][1][key]), key


@pytest.mark.parametrize("name", FORMS)
def test_average_makes_the_cells(name: str, tmp_path: Path) -> None:
    gan = small(name, **STRONG)
    fit(gan, tmp_path)
    before = gan.sample(4, Label.HEM, seed=0)
    gan.generator.apply(lambda m: nn.init.zeros_(m.weight) if isinstance(m, nn.Linear) else None)
    np.testing.assert_array_equal(gan.sample(4, Label.HEM, seed=0), before)


@pytest.mark.parametrize("name", FORMS)
def test_loss_that_is_no_number_stops_and_names_its_update(name: str, tmp_path: Path) -> None:
    gan = small(name, fitting=Fitting(generator_steps=1))
    kept: list[int] = []

    class Break(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
        ) -> None:
            if trainer.current_epoch == 1 and batch_idx == 2:
                next(gan.opponent.parameters()).data.fill_(float("nan"))

        def on_save_checkpoint(
            self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, object]
        ) -> None:
            kept.append(trainer.current_epoch)

    keep = ModelCheckpoint(tmp_path, filename="{epoch}", every_n_epochs=1)
    # The third round of the second epoch of four rounds is the seventh.
    with pytest.raises(TrainingError, match="not finite since generator update 7;"):
        fit(gan, tmp_path, epochs=3, callbacks=[Break(), keep])
    assert kept == [0]
    good = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in good.values())


@pytest.mark.parametrize("condition", ["onehot", "embedding"])
@pytest.mark.parametrize("networks", ["plain", "cell"])
def test_cgan_learns_its_condition(condition: str, networks: str, tmp_path: Path) -> None:
    """Dark cells of one class and bright ones of the other."""
    torch.manual_seed(0)
    gan = small(
        "cgan", condition=condition, networks=networks, fitting=Fitting(2e-3, 2e-3), dropout=0.0
    )
    pixels = np.full((32, 32, 32, 3), 30, np.uint8)
    pixels[16:] = 220
    fit(gan, tmp_path, epochs=25, pixels=pixels, labels=np.repeat([0, 1], 16))
    dark, bright = (gan.sample(8, label, seed=0).mean() for label in (Label.HEM, Label.ALL))
    assert bright - dark > 40


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("networks", ["plain", "cell"])
def test_bf16_follows_float32(name: str, networks: str, tmp_path: Path) -> None:
    curves = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        gan = small(name, networks=networks, dropout=0.0)
        trainer = fit(gan, tmp_path, epochs=3, precision=precision)
        curves.append([float(v) for k, v in sorted(trainer.callback_metrics.items())])
        assert {p.dtype for p in gan.parameters()} == {torch.float32}
    assert curves[1] == pytest.approx(curves[0], abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_compiled_it_learns_the_same(name: str, tmp_path: Path) -> None:
    if shutil.which("gcc") is None and shutil.which("c++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        gan = small(name, networks="cell")
        if compiled:
            gan.compile_networks()
        # Compiled code draws other numbers, here the generator's noise, unless it is told not to.
        with inductor.patch(fallback_random=True):
            trainer = fit(gan, tmp_path, epochs=1)
        losses.append([float(v) for v in trainer.callback_metrics.values()])
        assert not any("_orig_mod" in key for key in gan.state_dict())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3, abs=1e-3)


TWO_PROCESSES = """
import sys
import torch
from test_gans import STRONG, fit, small

if __name__ == "__main__":
    torch.manual_seed(0)
    gan = small(sys.argv[1], **STRONG)
    fit(gan, sys.argv[2], devices=2, strategy="ddp_find_unused_parameters_true")
    torch.save(gan.state_dict(), f"{sys.argv[2]}/rank{gan.global_rank}.pt")
"""


@pytest.mark.parametrize("name", FORMS)
def test_two_processes_keep_one_set_of_weights(name: str, tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(script), name, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(here), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in (0, 1))
    for key, value in first.items():
        if "running_" not in key and "averaged" not in key:  # each process counts its own batches
            assert torch.equal(value, second[key]), key
    torch.manual_seed(0)
    before = small(name, **STRONG).state_dict()
    assert any(not torch.equal(before[key], first[key]) for key in first if "weight" in key)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("networks", "widths"), [("plain", (8,) * 4), ("cell", (8,) * 5)])
def test_widths_that_do_not_fit_the_networks(
    name: str, networks: str, widths: tuple[int, ...]
) -> None:
    with pytest.raises(ConfigError, match=r"gan\.widths=.*: this generator takes [45] numbers"):
        FORMS[name](resolution=32, networks=networks, widths=widths)
