"""Training of the three GANs: budgets, resumption, precision, processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._inductor.config as inductor
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from small_gans import FORMS, STRONG, fit, small
from torch import nn

from leuk.data.labels import Label
from leuk.errors import TrainingError
from leuk.gans.base import Fitting


@pytest.mark.parametrize("name", FORMS)
def test_budget_counts_generator_updates(name: str, tmp_path: Path) -> None:
    gan = small(name, fitting=Fitting(updates=3))
    trainer = fit(gan, tmp_path, epochs=100)
    assert gan.done_updates == 3
    assert trainer.global_step > 3  # Lightning counts the steps of both optimizers


@pytest.mark.parametrize("name", FORMS)
def test_both_networks_learn(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    gan = small(name)
    before = {key: value.clone() for key, value in gan.state_dict().items()}
    fit(gan, tmp_path)
    after = gan.state_dict()
    for network in ("generator", gan.ADVERSARY):
        names = [name for name in before if name.startswith(network)]
        assert any(not torch.equal(before[name], after[name]) for name in names)


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


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("form", [{}, STRONG], ids=["plain", "strong"])
def test_resumed_fit_gives_the_weights_of_an_uninterrupted_fit(
    name: str, form: dict[str, object], tmp_path: Path
) -> None:
    """Three epochs at once, or one and two more from its checkpoint with another random state."""
    weights = []
    for interrupted in (False, True):
        torch.manual_seed(5)
        gan = small(name, dropout=0.3, r1=1.0, **form) if name != "wgan" else small(name, **form)
        if interrupted:
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
def test_average_generates_the_images(name: str, tmp_path: Path) -> None:
    gan = small(name, **STRONG)
    fit(gan, tmp_path)
    before = gan.sample(4, Label.HEM, seed=0)
    gan.generator.apply(lambda m: nn.init.zeros_(m.weight) if isinstance(m, nn.Linear) else None)
    np.testing.assert_array_equal(gan.sample(4, Label.HEM, seed=0), before)


@pytest.mark.parametrize("name", FORMS)
def test_non_finite_loss_stops_training_and_names_its_update(name: str, tmp_path: Path) -> None:
    gan = small(name, fitting=Fitting(generator_steps=1))
    kept: list[int] = []

    class Break(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
        ) -> None:
            if trainer.current_epoch == 1 and batch_idx == 2:
                next(gan.adversary.parameters()).data.fill_(float("nan"))

        def on_save_checkpoint(
            self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, object]
        ) -> None:
            kept.append(trainer.current_epoch)

    keep = ModelCheckpoint(tmp_path, filename="{epoch}", every_n_epochs=1)
    # With four rounds per epoch, the third round of the second epoch is the seventh.
    with pytest.raises(TrainingError, match="became NaN or infinite at generator update 7;"):
        fit(gan, tmp_path, epochs=3, callbacks=[Break(), keep])
    assert kept == [0]
    good = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in good.values())


@pytest.mark.parametrize("condition", ["onehot", "embedding"])
@pytest.mark.parametrize("networks", ["plain", "strong"])
def test_cgan_learns_its_condition(condition: str, networks: str, tmp_path: Path) -> None:
    """Images of class 0 are dark and those of class 1 bright."""
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
@pytest.mark.parametrize("networks", ["plain", "strong"])
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
def test_compiled_gan_learns_the_same(name: str, tmp_path: Path) -> None:
    if shutil.which("gcc") is None and shutil.which("c++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        gan = small(name, networks="strong")
        if compiled:
            gan.compile_networks()
        # Otherwise compiled code draws other random numbers for the generator's noise.
        with inductor.patch(fallback_random=True):
            trainer = fit(gan, tmp_path, epochs=1)
        losses.append([float(v) for v in trainer.callback_metrics.values()])
        assert not any("_orig_mod" in key for key in gan.state_dict())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3, abs=1e-3)


HELPERS = Path(__file__).parents[1] / "helpers"

TWO_PROCESSES = """
import sys
import torch
from leuk.training import EndsProcessGroup
from small_gans import STRONG, fit, small

if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    for name in names:
        torch.manual_seed(0)
        gan = small(name, **STRONG)
        fit(gan, f"{folder}/{name}", callbacks=[EndsProcessGroup()], devices=2,
            strategy="ddp_find_unused_parameters_true")
        torch.save(gan.state_dict(), f"{folder}/{name}-{gan.global_rank}.pt")
"""


@pytest.fixture(scope="module")
def fitted_by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of every form after training by two processes, as ``<form>-<rank>.pt``."""
    folder = tmp_path_factory.mktemp("two")
    script = folder / "two.py"
    script.write_text(TWO_PROCESSES)
    done = subprocess.run(
        [sys.executable, str(script), str(folder), *FORMS],
        env={**os.environ, "PYTHONPATH": str(HELPERS), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", FORMS)
def test_two_processes_end_with_equal_weights(name: str, fitted_by_two: Path) -> None:
    first, second = (
        torch.load(fitted_by_two / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    for key, value in first.items():
        if "running_" not in key and "averaged" not in key:  # batch statistics are per process
            assert torch.equal(value, second[key]), key
    torch.manual_seed(0)
    before = small(name, **STRONG).state_dict()
    assert any(not torch.equal(before[key], first[key]) for key in first if "weight" in key)
