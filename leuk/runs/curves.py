"""Lightning loggers for the training curves of a classifier, opened and closed safely."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from omegaconf import DictConfig

from leuk.errors import ConfigError
from leuk.runs.fitting import build_named

_NEEDS = {
    "TensorBoardLogger": "tensorboard",
    "MLFlowLogger": "mlflow",
    "WandbLogger": "wandb",
}
"""Package that each of Lightning's loggers requires; the extra ``loggers`` installs all."""

_LOCK = ".loggers.lock"

_CURVES = "metrics.csv"
"""File name of Lightning's CSV logger."""


def check_loggers(cfg: DictConfig) -> None:
    """Refuse a logger whose package is not installed.

    Raises:
        ConfigError: with the package to install.
    """
    for name, node in cfg.logger.items():
        package = _NEEDS.get(str(node._target_).rpartition(".")[2]) if node is not None else None
        if package is not None and find_spec(package) is None:
            raise ConfigError(
                f"logger.{name}: {package} is not installed; pip install 'leuk[loggers]', or "
                "choose logger=csv"
            )


@contextmanager
def open_loggers(cfg: DictConfig) -> Iterator[list[Logger]]:
    """Open the configured loggers and close them after training.

    Args:
        cfg: config of the run.

    Yields:
        The loggers.
    """
    # Runs can share a store (MLflow), which only a single process at a time may create.
    with FileLock(Path(str(cfg.outputs)) / _LOCK):
        loggers: list[Any] = list(build_named(cfg.logger).values())
        for logger in loggers:
            if isinstance(logger, CSVLogger):
                _keep(Path(logger.log_dir) / _CURVES)
            _ = logger.experiment
    try:
        yield loggers
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                # Otherwise the next run in this process would log to the same W&B run.
                logger.experiment.finish()


def _keep(curve: Path) -> None:
    """Rename the curve of stopped training, which the logger would delete."""
    if curve.is_file():
        before = len(list(curve.parent.glob(f"{curve.stem}-*{curve.suffix}")))
        curve.rename(curve.with_stem(f"{curve.stem}-{before + 1}"))
