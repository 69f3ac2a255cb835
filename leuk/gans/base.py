"""Running average of the generator's weights, which samples better than the latest weights."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.utils import save_image

from leuk.config.schema import Count, Positive, Share
from leuk.data.pixels import Batch
from leuk.gans.diffaugment import DiffAugment
from leuk.gans.layers import from_unit, to_uint8
from leuk.training import EVERY, FirstBad, KerasAdam, Stack, move_average, start_stream


class Averaged(nn.Module):
    """Exponential moving average of a network, batch statistics included (Yazici et al. 2019).

    torch's ``AveragedModel`` reads its update count from the device at every update, which waits
    for the GPU; here the caller keeps the count.

    Args:
        network: network whose weights are averaged.
        decay: weight of the previous average after the first updates, in [0, 1).

    Attributes:
        module: copy of the network with the averaged weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    def train(self, mode: bool = True) -> "Averaged":
        """Stay in evaluation mode, even if the parent module is set to training."""
        return super().train(False)

    def update(self, network: nn.Module, updates: int) -> None:
        """Add the weights of ``network`` after its update number ``updates`` to the average."""
        move_average(self.module.state_dict(), network.state_dict(), self.decay, updates)


# --- Base class of the GANs: rounds of updates, update budgets, sampling and exact resumption

_SAMPLING_BATCH = 256


_ADVICE = (
    "the last checkpoint is kept: lower gan.fitting.generator_rate or "
    "gan.fitting.adversary_rate, or set trainer.precision=32-true"
)
"""Remedy for a loss that is NaN or infinite."""


@dataclass(frozen=True)
class Fitting:
    """Settings of the alternating updates of generator and adversary.

    The adversary is the discriminator (DCGAN, cGAN) or the critic (WGAN-GP).

    Attributes:
        generator_rate: learning rate of the generator's Adam.
        adversary_rate: learning rate of the adversary's Adam.
        beta1: Adam's decay of the first moment, for both networks.
        beta2: Adam's decay of the second moment, for both networks.
        clip: limit on the absolute value of each element of the adversary's gradients; null for
            no limit.
        generator_steps: generator updates per round.
        adversary_steps: adversary updates per round, each on a new batch of real images.
        average: decay of the running average of the generator's weights, which is used for
            sampling; 0 to sample from the latest weights.
        updates: generator updates after which training stops; null for no limit but the epochs.
    """

    generator_rate: Positive = 1e-4
    adversary_rate: Positive = 1e-4
    beta1: Share = 0.5
    beta2: Share = 0.999
    clip: Positive | None = None
    generator_steps: Count = 1
    adversary_steps: Count = 1
    average: Share = 0.0
    updates: Count | None = None


class Adversarial(LightningModule, ABC):
    """Base class of the GANs; a subclass defines the networks and the losses.

    Each batch of real images updates the adversary once; the last batch of a round updates the
    generator too (Goodfellow et al. 2014, algorithm 1; Gulrajani et al. 2017, algorithm 1). A round
    may start in one epoch and end in the next. The random numbers of an epoch depend only on seed,
    epoch and process, so a fit resumed at the end of an epoch gives the same weights as an
    uninterrupted one.

    Args:
        resolution: side of the images in pixels, a multiple of 32.
        latent: length of a latent vector.
        stack: framework whose conventions Adam follows, see :mod:`leuk.training`.
        fitting: update settings, or a mapping of their fields as read from a checkpoint.
        augment: augmentation of the adversary's input, or a mapping of its fields as read from a
            checkpoint; None for no augmentation.
    """

    ADVERSARY: ClassVar[str] = "discriminator"
    """Name of the attribute that holds the adversary."""

    CONDITIONAL: ClassVar[bool] = False
    """True if one GAN generates images of both classes."""

    generator: nn.Module
    averaged: Averaged | None

    def __init__(
        self,
        resolution: int,
        latent: int,
        stack: Stack,
        fitting: Fitting | Mapping[str, Any],
        augment: DiffAugment | Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.resolution = resolution
        self.latent = latent
        self.stack = stack
        self.fitting = fitting if isinstance(fitting, Fitting) else Fitting(**fitting)
        self.augment = DiffAugment(**augment) if isinstance(augment, Mapping) else augment
        self.done_updates = 0
        self.adversary_updates = 0
        self._seed: int | None = None
        self.first_bad = FirstBad()

    def _set_networks(self, generator: nn.Module, adversary: nn.Module, **values: Any) -> None:
        """Store the networks, and save the constructor's arguments as plain hyper-parameters."""
        self.generator = generator
        setattr(self, self.ADVERSARY, adversary)
        self.averaged = Averaged(generator, self.fitting.average) if self.fitting.average else None
        plain = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
        self.save_hyperparameters(
            {
                **plain,
                "resolution": self.resolution,
                "latent": self.latent,
                "stack": self.stack,
                "fitting": asdict(self.fitting),
                "augment": asdict(self.augment) if self.augment else None,
            }
        )

    def compile_networks(self) -> None:
        """Compile the networks in place.

        torch.compile does not support double backward, so a penalized adversary stays uncompiled.
        """
        self.generator.compile()
        if not self.penalized:
            self.adversary.compile()

    @property
    def penalized(self) -> bool:
        """True if the adversary's loss contains a penalty on its own gradient."""
        return False

    @property
    def adversary(self) -> nn.Module:
        """The discriminator or critic."""
        network = getattr(self, self.ADVERSARY)
        assert isinstance(network, nn.Module)
        return network

    @abstractmethod
    def adversary_loss(self, real: Tensor, synthetic: Tensor, labels: Tensor) -> Tensor:
        """Loss of the adversary on real and synthetic images.

        Args:
            real: real images ``(B, 3, R, R)`` in [-1, 1].
            synthetic: synthetic images ``(B, 3, R, R)`` in [-1, 1], without a graph.
            labels: classes ``(B,)`` of the real images, and of the synthetic ones in the cGAN.
        """

    @abstractmethod
    def generator_loss(self, scores: Tensor) -> Tensor:
        """Compute the generator loss from the adversary's scores ``(B, 1)`` of synthetic images."""

    @property
    def done_rounds(self) -> int:
        """Number of complete rounds."""
        return self.done_updates // self.fitting.generator_steps

    def generate(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Images ``(B, 3, R, R)`` in [-1, 1] from noise ``(B, latent)`` and labels ``(B,)``."""
        images: Tensor = self.generator(noise)
        return images

    def score(self, images: Tensor, labels: Tensor) -> Tensor:
        """Augment images ``(B, 3, R, R)`` and return the adversary's scores ``float32 (B, 1)``."""
        scores: Tensor = self.adversary(self.augmented(images))
        return scores.float()

    def augmented(self, images: Tensor) -> Tensor:
        """Images as the adversary receives them."""
        return images if self.augment is None else self.augment(images)

    def training_step(self, batch: Batch, batch_index: int) -> None:
        """Update the networks; Lightning's ``global_step`` counts both optimizers' steps."""
        losses = self._updates(from_unit(batch["images"]), batch["labels"])
        self.first_bad.note(torch.stack(list(losses.values())), self.done_updates)
        self.log_dict(
            {f"gan/{name}": loss.detach() for name, loss in losses.items()},
            on_step=False,
            on_epoch=True,
            batch_size=len(batch["rows"]),
        )
        ends = self.fitting.updates is not None and self.done_updates >= self.fitting.updates
        self.trainer.should_stop |= ends
        # Also at the end of an epoch, before a checkpoint of broken weights could be written.
        if ends or self.trainer.is_last_batch or batch_index % EVERY == EVERY - 1:
            self.first_bad.check(self.trainer.strategy, "generator update", _ADVICE)

    def _updates(self, real: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Update the adversary and, at the end of a round, the generator; return losses by name."""
        for_generator, for_adversary = self.both_optimizers()
        ends_round = (self.adversary_updates + 1) % self.fitting.adversary_steps == 0
        with torch.set_grad_enabled(ends_round):  # only the last batch of a round needs the graph
            synthetic = self.generate(self.noise(len(real)), labels)
        loss_adversary = self.adversary_loss(real, synthetic.detach(), labels)
        self._update(for_adversary, loss_adversary, self.adversary)
        self.adversary_updates += 1
        losses = {f"{self.ADVERSARY}_loss": loss_adversary}
        if not ends_round:
            return losses
        steps = self.fitting.generator_steps
        if self.fitting.updates is not None:
            steps = min(steps, self.fitting.updates - self.done_updates)
        self.adversary.requires_grad_(False)
        for step in range(steps):
            if step:  # the first step reuses the images of the adversary's update
                synthetic = self.generate(self.noise(len(real)), labels)
            losses["generator_loss"] = self.generator_loss(self.score(synthetic, labels))
            self._update(for_generator, losses["generator_loss"])
            self.done_updates += 1
            if self.averaged is not None:
                self.averaged.update(self.generator, self.done_updates)
        self.adversary.requires_grad_(True)
        return losses

    def _update(
        self, optimizer: LightningOptimizer, loss: Tensor, clipped: nn.Module | None = None
    ) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        if clipped is not None and self.fitting.clip is not None:
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None:  # 16-mixed scales gradients by up to 65,536
                scaler.unscale_(optimizer.optimizer)
            torch.nn.utils.clip_grad_value_(clipped.parameters(), self.fitting.clip)
        optimizer.step()

    def on_fit_start(self) -> None:
        if self._seed is None:
            self._seed = torch.initial_seed()

    def on_train_epoch_start(self) -> None:
        assert self._seed is not None
        start_stream(self._seed, self.current_epoch, self.global_rank)

    def both_optimizers(self) -> tuple[LightningOptimizer, LightningOptimizer]:
        """Optimizers of the generator and of the adversary."""
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        first, second = optimizers
        return first, second

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam optimizers of the generator and of the adversary, in this order."""
        betas = (self.fitting.beta1, self.fitting.beta2)
        rates = (self.fitting.generator_rate, self.fitting.adversary_rate)
        adam = KerasAdam if self.stack == "keras" else torch.optim.Adam
        return [
            adam(network.parameters(), lr=rate, betas=betas, fused=True)
            for network, rate in zip((self.generator, self.adversary), rates, strict=True)
        ]

    def noise(self, count: int) -> Tensor:
        """Latent vectors ``(count, latent)`` on the module's device."""
        return torch.randn(count, self.latent, device=self.device)

    @torch.no_grad()
    def sample(self, count: int, label: int, seed: int) -> npt.NDArray[np.uint8]:
        """Generate images; equal arguments give equal images.

        Args:
            count: number of images.
            label: class of all images; ignored by a GAN of a single class.
            seed: seed of the latent vectors and of the generator's noise.

        Returns:
            Images ``uint8 (count, R, R, 3)``.
        """
        with self._sampling(seed):
            vectors = torch.randn(count, self.latent).to(self.device)
            labels = torch.full((count,), label, device=self.device)
            images = [
                to_uint8(self.generate(*batch))
                for batch in zip(
                    vectors.split(_SAMPLING_BATCH), labels.split(_SAMPLING_BATCH), strict=True
                )
            ]
        return torch.cat(images).cpu().numpy()

    @contextmanager
    def _sampling(self, seed: int) -> Iterator[None]:
        """Use the averaged generator in evaluation mode, with random numbers from ``seed``."""
        generator, training = self.generator, self.training
        if self.averaged is not None:
            self.generator = self.averaged.module
        self.eval()
        devices = [self.device] if self.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(seed)
                yield
        finally:
            self.generator = generator
            self.train(training)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["generator_updates"] = self.done_updates
        checkpoint["adversary_updates"] = self.adversary_updates

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.done_updates = checkpoint["generator_updates"]
        # Checkpoints of format 2 lack this count; they are only sampled from, never resumed.
        self.adversary_updates = checkpoint.get("adversary_updates", 0)


# --- Sheets of synthetic images saved during training, always from the same latent vectors

_SHOWN = 16
_WIDE = 8
_LARGEST = 64
"""Largest side of an image on a sheet in pixels; hundreds of sheets take a few megabytes."""

_SEED = 0


class SampleGrids(Callback):
    """Callback that writes a sheet such as ``epoch_0007.png`` every few epochs.

    Args:
        folder: folder of the sheets.
        labels: classes that the GAN generates; each gets two rows of images.
        every: epochs from one sheet to the next; the last epoch always gets a sheet.
    """

    def __init__(self, folder: Path, labels: Sequence[int], every: int = 1) -> None:
        self.folder = folder
        self.labels = labels
        self.every = every

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Adversarial)
        epoch = trainer.current_epoch + 1
        last = trainer.should_stop or epoch == trainer.max_epochs
        if trainer.is_global_zero and (last or epoch % self.every == 0):
            save_grid(self.folder / f"epoch_{epoch:04d}.png", pl_module, self.labels)


def save_grid(path: Path, gan: Adversarial, labels: Sequence[int]) -> None:
    """Write sixteen images of each class, from the same latent vectors for each."""
    sampled = [torch.from_numpy(gan.sample(_SHOWN, label, _SEED)) for label in labels]
    images = torch.cat(sampled).permute(0, 3, 1, 2) / 255
    if images.shape[-1] > _LARGEST:
        images = F.interpolate(images, _LARGEST, mode="area")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(images, path, nrow=_WIDE)
