"""Where the curves of a classifier's fit go: Lightning's loggers, opened and closed in order."""

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
"""The package that each of Lightning's loggers needs; the extra ``loggers`` installs them."""

_LOCK = ".loggers.lock"

_CURVES = "metrics.csv"
"""What Lightning calls the file of its CSV logger."""


def check_loggers(cfg: DictConfig) -> None:
    """Refuse a logger that is not installed.

    Raises:
        ConfigError: saying what to install.
    """
    for name, node in cfg.logger.items():
        package = _NEEDS.get(str(node._target_).rpartition(".")[2]) if node is not None else None
        if package is not None and find_spec(package) is None:
            raise ConfigError(
                f"logger.{name}: {package} is not installed; pip install 'leuk[loggers]', or "
                "choose logger=csv"
            )


@contextmanager
def curves(cfg: DictConfig) -> Iterator[list[Logger]]:
    """Give the configured loggers, open; what a fit must not leave open is closed after it."""
    # A store that cells share is set up by the first that opens it, and only by one at a time.
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
                # Or the next cell of this process would write into the same run.
                logger.experiment.finish()


def _keep(curve: Path) -> None:
    """Give the curve of a fit that was stopped a name of its own; the logger would remove it."""
    if curve.is_file():
        before = len(list(curve.parent.glob(f"{curve.stem}-*{curve.suffix}")))
        curve.rename(curve.with_stem(f"{curve.stem}-{before + 1}"))
