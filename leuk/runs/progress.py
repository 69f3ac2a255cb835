"""Progress as plain log lines, readable in terminals, Docker logs and SLURM output files."""

import logging
import logging.config
import time
from collections.abc import Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import OmegaConf

log = logging.getLogger(__name__)


class Progress(Callback):
    """Log the images per second, the validation metrics and the remaining time.

    Args:
        every: minimum seconds between lines; the last epoch is always logged.
    """

    def __init__(self, every: float = 10.0) -> None:
        self.every = every
        self._started = self._last = 0.0
        self._images = 0
        self._logging: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle with the logging setup, so that other processes of the run log like this one."""
        logs = None
        if HydraConfig.initialized():
            logs = OmegaConf.to_container(HydraConfig.get().job_logging, resolve=True)
        return {**self.__dict__, "_logging": logs}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._logging and not logging.getLogger().handlers:
            logging.config.dictConfig(self._logging)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = self._last = time.perf_counter()
        self._images = 0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Mapping[str, Any],
        batch_idx: int,
    ) -> None:
        self._images += len(batch["rows"]) * trainer.world_size
        if time.perf_counter() - self._last >= self.every:
            self._log(trainer, batch_idx + 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if last or time.perf_counter() - self._last >= self.every:
            self._log(trainer, int(trainer.num_training_batches))

    def _log(self, trainer: Trainer, batches_done: int) -> None:
        self._last = time.perf_counter()
        if not trainer.is_global_zero:
            return
        elapsed = self._last - self._started
        epochs = trainer.max_epochs or 1
        done = trainer.current_epoch + batches_done / max(1, int(trainer.num_training_batches))
        left = elapsed * (epochs - done) / done if done else 0.0
        metrics = "".join(
            f"  {name} {float(value):.3f}"
            for name, value in sorted(trainer.callback_metrics.items())
        )
        log.info(
            "  epoch %d/%d  %.0f images/s%s  at most %s left",
            min(int(done) + (done % 1 > 0), epochs),
            epochs,
            self._images / elapsed,
            metrics,
            clock(left),
        )


def clock(seconds: float) -> str:
    """Format seconds as ``m:ss``, or as ``h:mm:ss`` from an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
