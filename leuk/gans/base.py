"""Base class of the GANs: their training loop, sampling and exact resumption."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from leuk.data.pixels import Batch, to_float
from leuk.gans.diffaugment import DiffAugment
from leuk.gans.layers import to_uint8
from leuk.training import (
    EVERY,
    FirstBad,
    KerasAdam,
    SeededModule,
    Stack,
    move_average,
    save_arguments,
)

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
    """

    generator_rate: Positive = 1e-4  # learning rate of the generator's Adam
    adversary_rate: Positive = 1e-4  # learning rate of the adversary's Adam
    beta1: Share = 0.5  # decay of the first moment in both
    beta2: Share = 0.999  # decay of the second moment in both
    clip: Positive | None = None  # limit on each element of the adversary's gradients, if any
    generator_steps: Count = 1  # generator updates per round
    adversary_steps: Count = 1  # adversary updates per round, each on a new batch of real images
    average: Share = 0.0  # decay of the running average of the generator that is sampled; 0: none
    updates: Count | None = None  # generator updates after which training stops, before the epochs


class Adversarial(SeededModule, ABC):
    """Base class of the GANs; a subclass builds the networks and defines the losses.

    Each batch of real images updates the adversary once; the last batch of a round updates the
    generator too (Goodfellow et al. 2014, algorithm 1; Gulrajani et al. 2017, algorithm 1). A round
    may start in one epoch and end in the next. The random numbers of an epoch depend only on seed,
    epoch and process, so a fit resumed at the end of an epoch gives the same weights as an
    uninterrupted one. The arguments of the subclass's constructor are saved in every checkpoint.

    Args:
        generator: maps noise, and in a conditional GAN labels, to images in [-1, 1].
        adversary: maps images, and in a conditional GAN labels, to scores, high for real.
        latent: length of a latent vector.
        stack: framework whose conventions Adam follows, see :mod:`leuk.training`.
        fitting: update settings, or a mapping of their fields as read from a checkpoint.
        augment: augmentation of the adversary's input, or a mapping of its fields as read from a
            checkpoint; None for no augmentation.

    Attributes:
        averaged: running average of the generator as its entry ``module``, batch statistics
            included, which samples better than the latest weights (Yazici et al. 2019), or None.
        done_updates: generator updates so far.
        adversary_updates: adversary updates so far.
    """

    ADVERSARY: ClassVar[str] = "discriminator"
    """Name of the attribute that holds the adversary."""

    CONDITIONAL: ClassVar[bool] = False
    """True if one GAN generates images of both classes."""

    penalized: bool = False
    """True if the adversary's loss contains a penalty on its own gradient."""

    def __init__(
        self,
        generator: nn.Module,
        adversary: nn.Module,
        latent: int,
        stack: Stack,
        fitting: Fitting | Mapping[str, Any],
        augment: DiffAugment | Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        save_arguments(self)
        self.automatic_optimization = False
        self.latent = latent
        self.stack = stack
        self.fitting = fitting if isinstance(fitting, Fitting) else Fitting(**fitting)
        self.augment = DiffAugment(**augment) if isinstance(augment, Mapping) else augment
        self.generator = generator
        setattr(self, self.ADVERSARY, adversary)
        self.averaged: nn.ModuleDict | None = None
        if self.fitting.average:
            average = copy.deepcopy(generator).requires_grad_(False)
            self.averaged = nn.ModuleDict({"module": average})
        self.first_bad = FirstBad()
        self.done_updates = 0
        self.adversary_updates = 0

    @property
    def adversary(self) -> nn.Module:
        """The discriminator or critic."""
        network = getattr(self, self.ADVERSARY)
        assert isinstance(network, nn.Module)
        return network

    @property
    def done_rounds(self) -> int:
        """Number of complete rounds."""
        return self.done_updates // self.fitting.generator_steps

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

    def noise(self, count: int) -> Tensor:
        """Latent vectors ``(count, latent)`` on the module's device."""
        return torch.randn(count, self.latent, device=self.device)

    # --- Training

    def training_step(self, batch: Batch, batch_index: int) -> None:
        """Update the adversary and, with the last batch of a round, the generator.

        Lightning's ``global_step`` counts the steps of both optimizers; ``done_updates`` does not.
        """
        real, labels = batch["images"] * 2 - 1, batch["labels"]  # (B, 3, R, R) in [-1, 1], (B,)
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        for_generator, for_adversary = optimizers
        ends_round = (self.adversary_updates + 1) % self.fitting.adversary_steps == 0

        with torch.set_grad_enabled(ends_round):  # otherwise the generator needs no graph
            synthetic = self.generate(self.noise(len(real)), labels)
        loss = self.adversary_loss(real, synthetic.detach(), labels)
        self._update(for_adversary, loss, self.fitting.clip)
        self.adversary_updates += 1
        losses = {f"gan/{self.ADVERSARY}_loss": loss.detach()}

        if ends_round:
            steps = self.fitting.generator_steps
            if self.fitting.updates is not None:
                steps = min(steps, self.fitting.updates - self.done_updates)
            self.adversary.requires_grad_(False)
            for step in range(steps):
                if step:  # the first step reuses the images of the adversary's update
                    synthetic = self.generate(self.noise(len(real)), labels)
                loss = self.generator_loss(self.score(synthetic, labels))
                self._update(for_generator, loss)
                self.done_updates += 1
                losses["gan/generator_loss"] = loss.detach()
                if self.averaged is not None:
                    past, now = self.averaged["module"].state_dict(), self.generator.state_dict()
                    move_average(past, now, self.fitting.average, self.done_updates)
            self.adversary.requires_grad_(True)

        self.first_bad.note(torch.stack(list(losses.values())), self.done_updates)
        self.log_dict(losses, on_step=False, on_epoch=True, batch_size=len(real))
        ends = self.fitting.updates is not None and self.done_updates >= self.fitting.updates
        self.trainer.should_stop |= ends
        # Also at the end of an epoch, before a checkpoint of broken weights could be written.
        if ends or self.trainer.is_last_batch or batch_index % EVERY == EVERY - 1:
            self.first_bad.check(self.trainer.strategy, "generator update", _ADVICE)

    def _update(
        self, optimizer: LightningOptimizer, loss: Tensor, clip: float | None = None
    ) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        if clip is not None:
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None:  # 16-mixed scales gradients by up to 65,536
                scaler.unscale_(optimizer.optimizer)
            (group,) = optimizer.param_groups
            torch.nn.utils.clip_grad_value_(group["params"], clip)
        optimizer.step()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam optimizers of the generator and of the adversary, in this order."""
        betas = (self.fitting.beta1, self.fitting.beta2)
        rates = (self.fitting.generator_rate, self.fitting.adversary_rate)
        adam = KerasAdam if self.stack == "keras" else torch.optim.Adam
        return [
            adam(network.parameters(), lr=rate, betas=betas, fused=True)
            for network, rate in zip((self.generator, self.adversary), rates, strict=True)
        ]

    def compile_networks(self) -> None:
        """Compile the networks in place.

        torch.compile does not support double backward, so a penalized adversary stays uncompiled.
        """
        self.generator.compile()
        if not self.penalized:
            self.adversary.compile()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["generator_updates"] = self.done_updates
        checkpoint["adversary_updates"] = self.adversary_updates

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.done_updates = checkpoint["generator_updates"]
        # Checkpoints of format 2 lack this count; they are only sampled from, never resumed.
        self.adversary_updates = checkpoint.get("adversary_updates", 0)

    # --- Sampling

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
        generator, training = self.generator, self.training
        if self.averaged is not None:
            self.generator = self.averaged["module"]
        self.eval()
        try:
            devices = [self.device] if self.device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(seed)
                vectors = torch.randn(count, self.latent).to(self.device)
                labels = torch.full((count,), label, device=self.device)
                batches = zip(
                    vectors.split(_SAMPLING_BATCH), labels.split(_SAMPLING_BATCH), strict=True
                )
                images = [to_uint8(self.generate(*batch)) for batch in batches]
        finally:
            self.generator = generator
            self.train(training)
        return torch.cat(images).cpu().numpy()


class SampleGrids(Callback):
    """Sheets such as ``epoch_0007.png`` of images from the same latent vectors, during training.

    Args:
        folder: folder of the sheets.
        labels: classes that the GAN generates; each gets two rows of eight images.
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
        if not trainer.is_global_zero or not (last or epoch % self.every == 0):
            return
        sampled = [torch.from_numpy(pl_module.sample(16, label, seed=0)) for label in self.labels]
        images = to_float(torch.cat(sampled))
        if images.shape[-1] > 64:  # hundreds of sheets then take a few megabytes
            images = F.interpolate(images, 64, mode="area")
        self.folder.mkdir(parents=True, exist_ok=True)
        save_image(images, self.folder / f"epoch_{epoch:04d}.png", nrow=8)
