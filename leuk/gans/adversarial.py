"""What the GANs share: rounds of updates, budgets in generator updates, sampling, exact resume."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from leuk.config.ranges import Count, Positive, Share
from leuk.data.bank import Batch
from leuk.gans.averaging import Averaged
from leuk.gans.blocks import from_unit, to_uint8
from leuk.gans.diffaugment import DiffAugment
from leuk.training.guard import EVERY, FirstBad
from leuk.training.randomness import start_stream
from leuk.training.stack import KerasAdam, Stack

_SAMPLING_BATCH = 256


_ADVICE = (
    "what was fitted before is kept: lower gan.fitting.generator_rate or "
    "gan.fitting.opponent_rate, or set trainer.precision=32-true"
)
"""What to do about a loss that is not finite."""


@dataclass(frozen=True)
class Fitting:
    """How the two networks are updated against each other.

    Attributes:
        generator_rate: learning rate of the generator's Adam.
        opponent_rate: learning rate of the discriminator's or critic's.
        beta1: decay of the first moment, of both.
        beta2: decay of the second.
        clip: largest absolute value of a gradient of the opponent; null for none.
        generator_steps: updates of the generator per round.
        opponent_steps: updates of the opponent per round, each on real images of its own.
        average: decay of the running average that samples; 0 samples the last weights.
        updates: generator updates after which fitting stops; null leaves it to the epochs.
    """

    generator_rate: Positive = 1e-4
    opponent_rate: Positive = 1e-4
    beta1: Share = 0.5
    beta2: Share = 0.999
    clip: Positive | None = None
    generator_steps: Count = 1
    opponent_steps: Count = 1
    average: Share = 0.0
    updates: Count | None = None


class Adversarial(LightningModule, ABC):
    """Base of the GANs; a subclass has its networks and its losses.

    Each batch of real images updates the opponent once; the last batch of a round updates the
    generator too (Goodfellow et al. 2014, algorithm 1; Gulrajani et al. 2017, algorithm 1). A round
    may end in the epoch after the one it began in. All randomness of an epoch follows from seed,
    epoch and process, so that a run continued from the end of an epoch makes what an unbroken one
    would.

    Args:
        resolution: pixels a side, a multiple of 32.
        latent: numbers a latent vector.
        stack: whose conventions Adam follows.
        fitting: how the networks are updated; a mapping of its fields from a checkpoint.
        augment: changes what the opponent sees; a mapping from a checkpoint; None for nothing.
    """

    OPPONENT: ClassVar[str] = "discriminator"
    CONDITIONAL: ClassVar[bool] = False
    """Whether one fitted GAN makes cells of both classes."""

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
        self.opponent_updates = 0
        self._seed: int | None = None
        self.first_bad = FirstBad()

    def _own(self, generator: nn.Module, opponent: nn.Module, **values: Any) -> None:
        """Take the networks, and record the constructor's arguments as plain values."""
        self.generator = generator
        setattr(self, self.OPPONENT, opponent)
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
        """Compile the networks in place; one whose gradient is penalised has no compiled form."""
        self.generator.compile()
        if not self.penalised:
            self.opponent.compile()

    @property
    def penalised(self) -> bool:
        """Whether the loss differentiates the opponent's own gradient."""
        return False

    @property
    def opponent(self) -> nn.Module:
        """The discriminator or critic."""
        network = getattr(self, self.OPPONENT)
        assert isinstance(network, nn.Module)
        return network

    @abstractmethod
    def opponent_loss(self, real: Tensor, made: Tensor, labels: Tensor) -> Tensor:
        """Loss of the opponent on real and made images ``(B, 3, R, R)`` of these labels."""

    @abstractmethod
    def generator_loss(self, judged: Tensor) -> Tensor:
        """Loss of the generator from the opponent's scores ``(B, 1)`` of what it made."""

    @property
    def done_rounds(self) -> int:
        """Rounds that are finished."""
        return self.done_updates // self.fitting.generator_steps

    def make(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Images ``(B, 3, R, R)`` in [-1, 1] from latent vectors ``(B, latent)``."""
        images: Tensor = self.generator(noise)
        return images

    def judge(self, images: Tensor, labels: Tensor) -> Tensor:
        """The opponent's scores ``float32 (B, 1)`` of augmented images."""
        scores: Tensor = self.opponent(self.seen(images))
        return scores.float()

    def seen(self, images: Tensor) -> Tensor:
        """Images as the opponent sees them."""
        return images if self.augment is None else self.augment(images)

    def training_step(self, batch: Batch, batch_index: int) -> None:
        """Update once per network and batch; Lightning's own step count adds both networks'."""
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
        # At the end of an epoch too, so that no checkpoint is written of broken weights.
        if ends or self.trainer.is_last_batch or batch_index % EVERY == EVERY - 1:
            self.first_bad.look(self.trainer.strategy, "generator update", _ADVICE)

    def _updates(self, real: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Update the opponent and, at the end of a round, the generator; losses by name."""
        for_generator, for_opponent = self.both_optimizers()
        ends_round = (self.opponent_updates + 1) % self.fitting.opponent_steps == 0
        with torch.set_grad_enabled(ends_round):  # the generator learns from the last alone
            made = self.make(self.noise(len(real)), labels)
        loss_opponent = self.opponent_loss(real, made.detach(), labels)
        self._update(for_opponent, loss_opponent, self.opponent)
        self.opponent_updates += 1
        losses = {f"{self.OPPONENT}_loss": loss_opponent}
        if not ends_round:
            return losses
        steps = self.fitting.generator_steps
        if self.fitting.updates is not None:
            steps = min(steps, self.fitting.updates - self.done_updates)
        self.opponent.requires_grad_(False)
        for step in range(steps):
            if step:  # the first takes what the opponent has just seen
                made = self.make(self.noise(len(real)), labels)
            losses["generator_loss"] = self.generator_loss(self.judge(made, labels))
            self._update(for_generator, losses["generator_loss"])
            self.done_updates += 1
            if self.averaged is not None:
                self.averaged.update(self.generator, self.done_updates)
        self.opponent.requires_grad_(True)
        return losses

    def _update(
        self, optimizer: LightningOptimizer, loss: Tensor, clipped: nn.Module | None = None
    ) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        if clipped is not None and self.fitting.clip is not None:
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None:  # 16-mixed: gradients are up to 65,536 times as large
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
        """The generator's optimizer and its opponent's."""
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        first, second = optimizers
        return first, second

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the generator, Adam for its opponent."""
        betas = (self.fitting.beta1, self.fitting.beta2)
        rates = (self.fitting.generator_rate, self.fitting.opponent_rate)
        adam = KerasAdam if self.stack == "keras" else torch.optim.Adam
        return [
            adam(network.parameters(), lr=rate, betas=betas, fused=True)
            for network, rate in zip((self.generator, self.opponent), rates, strict=True)
        ]

    def noise(self, count: int) -> Tensor:
        """Latent vectors ``(count, latent)`` on the module's device."""
        return torch.randn(count, self.latent, device=self.device)

    @torch.no_grad()
    def sample(self, count: int, label: int, seed: int) -> npt.NDArray[np.uint8]:
        """Make cells; the same arguments make the same cells.

        Args:
            count: how many.
            label: their class; a GAN fitted on one class only makes that one.
            seed: of the latent vectors.

        Returns:
            ``uint8 (count, R, R, 3)``.
        """
        with self._sampling(seed):
            vectors = torch.randn(count, self.latent).to(self.device)
            labels = torch.full((count,), label, device=self.device)
            made = [
                to_uint8(self.make(*some))
                for some in zip(
                    vectors.split(_SAMPLING_BATCH), labels.split(_SAMPLING_BATCH), strict=True
                )
            ]
        return torch.cat(made).cpu().numpy()

    @contextmanager
    def _sampling(self, seed: int) -> Iterator[None]:
        """The averaged generator, in evaluation mode, with randomness of its own."""
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
        checkpoint["opponent_updates"] = self.opponent_updates

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.done_updates = checkpoint["generator_updates"]
        # Checkpoints of format 2 hold whole rounds alone, and are sampled from, not resumed.
        self.opponent_updates = checkpoint.get("opponent_updates", 0)
