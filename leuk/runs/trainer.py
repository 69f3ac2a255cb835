"""Trainers: device, precision, progress, checkpoints and loggers."""

import inspect
import logging
import logging.config
import os
import pickle
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from leuk.config.targets import instantiate
from leuk.errors import ConfigError, StoreError, TrainingError
from leuk.progress import PASSING
from leuk.runs.run import choice_of
from leuk.store import whole_file
from leuk.training import EndsProcessGroup

log = logging.getLogger(__name__)


def uses_cuda(accelerator: str) -> bool:
    """Return True if ``trainer.accelerator`` resolves to CUDA on this host."""
    return accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available()


def check_device(cfg: DictConfig) -> None:
    """Refuse a GPU on a host without one."""
    wanted = cfg.trainer.accelerator
    if wanted not in ("gpu", "cuda") or torch.cuda.is_available():
        return
    if wanted == "gpu" and torch.backends.mps.is_available():  # Lightning then uses Apple's GPU
        return
    if torch.version.cuda is None:
        why = f"torch {torch.__version__} is built without CUDA"
    elif os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        why = "hidden by CUDA_VISIBLE_DEVICES"
    else:
        why = "no driver or GPU found; check with nvidia-smi"
    chosen = choice_of("trainer", cfg)
    key = f"trainer={chosen}" if chosen == "gpu" else f"trainer.accelerator={wanted}"
    raise ConfigError(
        f"{key}: no CUDA device ({why}); choose trainer=cpu, or trainer=auto to use a GPU if "
        "present"
    )


def assign_devices(cfg: DictConfig, hydra_cfg: DictConfig) -> None:
    """Assign a job its share of this host if several run in parallel.

    A job gets the GPU with its number, unless ``trainer.devices``, which is changed, names devices.
    Without GPUs it gets its share of the cores; joblib divides the cores itself.
    """
    launcher = hydra_cfg.runtime.choices.get("hydra/launcher")
    number = OmegaConf.select(hydra_cfg, "job.num", throw_on_missing=False)
    if launcher not in ("joblib", "submitit_local") or number is None:
        return
    if not uses_cuda(cfg.trainer.accelerator):
        if at_once := OmegaConf.select(hydra_cfg, "sweeper.max_batch_size"):
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // at_once))
    elif cfg.trainer.devices == 1:
        cfg.trainer.devices = [int(number) % torch.cuda.device_count()]


def jobs_at_once(accelerator: str) -> int:
    """Default number of parallel runs on this host: one per GPU, or per core without GPUs."""
    return torch.cuda.device_count() if uses_cuda(accelerator) else os.cpu_count() or 1


def batch_of(cfg: DictConfig, hydra_cfg: DictConfig) -> int | None:
    """Return the number of runs per call of the launcher; None for all, if it queues them."""
    if hydra_cfg.runtime.choices.get("hydra/launcher") != "submitit_local":
        return None
    return jobs_at_once(OmegaConf.select(cfg, "trainer.accelerator") or "auto")


def device_for(accelerator: str) -> str:
    """Device for networks outside a trainer: ``cuda`` or ``cpu``."""
    return "cuda" if uses_cuda(accelerator) else "cpu"


def gains_from_bf16(accelerator: str) -> bool:
    """Return True if bfloat16 is fast: on Ampere and later GPUs, on CPUs with bf16 instructions."""
    if uses_cuda(accelerator):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def precision_for(accelerator: str) -> str:
    """Lightning's ``precision`` for a device: ``bf16-mixed`` if it is fast, else ``32-true``."""
    return "bf16-mixed" if gains_from_bf16(accelerator) else "32-true"


def gains_from_channels_last(accelerator: str) -> bool:
    """Return True if channels-last is fast: on GPUs with tensor cores, on CPUs with oneDNN."""
    if uses_cuda(accelerator):
        return torch.cuda.get_device_capability() >= (7, 0)
    return bool(torch.backends.mkldnn.is_available())


def describe(trainer: Trainer, channels_last: bool) -> dict[str, Any]:
    """Values for the record: ``name``, ``precision``, ``channels_last``, ``processes``."""
    root = trainer.strategy.root_device
    return {
        "name": torch.cuda.get_device_name(root) if root.type == "cuda" else _cpu_name(),
        "precision": str(trainer.precision),
        "channels_last": channels_last,
        "processes": trainer.world_size,
    }


def name_of(accelerator: str) -> str:
    """Name in records of the device that ``trainer.accelerator`` resolves to on this host."""
    return torch.cuda.get_device_name() if uses_cuda(accelerator) else _cpu_name()


def _cpu_name() -> str:
    tiles = ", bf16 instructions" if gains_from_bf16("cpu") else ""
    return (
        f"CPU ({torch.backends.cpu.get_cpu_capability()}{tiles}, {torch.get_num_threads()} threads)"
    )


class ChannelsLast(Callback):
    """Keep convolution weights in channels-last memory, the layout of the images."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        layout = torch.channels_last if self.enabled else torch.contiguous_format
        pl_module.to(memory_format=layout)


class TF32(Callback):
    """Allow TF32 for float32 matrix products and convolutions: faster, with 10 bits of mantissa.

    ``enabled=False`` sets full float32, even if an earlier run in this process allowed TF32.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        torch.set_float32_matmul_precision("high" if self.enabled else "highest")
        # Convolutions have a separate setting, on by default.
        torch.backends.cudnn.allow_tf32 = self.enabled


# --- Progress as plain log lines, readable in terminals, Docker logs and SLURM output files


class Progress(Callback):
    """Log the images per second, the validation metrics and the remaining time.

    At least ``every`` seconds pass between lines; the last epoch is always logged.
    """

    def __init__(self, every: float = 10.0) -> None:
        self.every = every
        self._started = self._last = 0.0
        self._images = 0
        self._logging: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle with the logging setup, so that other processes of the run log likewise."""
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
            extra=PASSING,
        )


def clock(seconds: float) -> str:
    """Format seconds as ``m:ss``, or as ``h:mm:ss`` from an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


# --- Checkpoints: atomic writing, safe reading, and the stamp that identifies their run

_ARGUMENTS = ("hyper_parameters", "hparams", "module_arguments")
"""Keys under which Lightning stores the arguments of a module."""

_CALLED = {"_instantiator", "_class_path"}
"""Keys whose values Lightning imports and calls, in some versions without any check."""

_MISMATCHES = {
    "form": "of another model",
    "settings": "trained with other settings",
    "data": "trained on other data",
}
"""Message for each key of a stamp that can differ; the first difference is reported."""


class WholeCheckpoints(TorchCheckpointIO):
    """Atomic checkpoint writer: writes a temporary file in the same folder, then renames it.

    Lightning writes to the system's temporary folder, which may be small and on another disk, and
    copies the file, so that a process killed meanwhile leaves a truncated checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        with whole_file(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def last_readable(folder: Path) -> Path | None:
    """Return the newest readable checkpoint of a folder, or None."""
    for path in sorted(folder.glob("[!.]*.ckpt"), reverse=True):
        try:
            epoch = _load(path)["epoch"]
        except (StoreError, KeyError) as error:
            log.warning("%s; trying an older checkpoint", error)
            continue
        log.info("resuming after epoch %d from %s", epoch + 1, path)
        return path
    return None


def read_checkpoint(path: Path, stamp: Mapping[str, str]) -> dict[str, Any]:
    """Read the weights and plain values of a checkpoint.

    ``stamp`` has the required values of its stamp, see :attr:`Classifier.stamp`; missing keys are
    not compared.

    Raises:
        StoreError: the file cannot be read, or belongs to another model, other settings or other
            data.
    """
    values = _load(path)
    found = values.get("stamp", {})
    if not isinstance(found, dict):
        raise StoreError(f"{path}: no readable checkpoint (no stamp in it)")
    for key, mismatch in _MISMATCHES.items():
        if key in stamp and found.get(key) != stamp[key]:
            raise StoreError(
                f"{path}: {mismatch} ({key} {found.get(key, 'unknown')}, not {stamp[key]}); remove "
                "it, or choose another name for this sweep: name=NAME"
            )
    return values


def older_arguments(form: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return constructor arguments for checkpoints from before the argument ``stack`` existed."""
    known = "stack" in values.get("hyper_parameters", {})
    takes = "stack" in inspect.signature(form).parameters
    return {"stack": "torch"} if takes and not known else {}


def _load(path: Path) -> dict[str, Any]:
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Replace torch's message, which advises to load with arbitrary code execution enabled.
        raise StoreError(
            f"{path}: no readable checkpoint (damaged, or more than weights and plain values)"
        ) from error
    except Exception as error:  # a damaged file can raise anything
        first = str(error).strip().partition("\n")[0]
        raise StoreError(f"{path}: no readable checkpoint ({first})") from error
    if not isinstance(values, dict) or not isinstance(values.get("state_dict"), dict):
        raise StoreError(f"{path}: no readable checkpoint (no weights in it)")
    for key in _ARGUMENTS:
        found = values.get(key, {})
        if not isinstance(found, dict) or _CALLED & set(map(str, found)):
            raise StoreError(f"{path}: its {key} refer to code to call; do not use this file")
    return values


# --- Trainers and callbacks from a config, for classifiers and GANs


def build_trainer(
    cfg: DictConfig, folder: Path, callbacks: list[Callback], **changes: Any
) -> Trainer:
    """Build the configured trainer; ``changes`` are arguments that differ from the config's."""
    try:
        trainer: Trainer = instantiate(
            cfg.trainer,
            callbacks=[*callbacks, EndsProcessGroup()],
            default_root_dir=str(folder),
            plugins=[WholeCheckpoints()],
            **changes,
        )
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"trainer: {str(error).strip().splitlines()[0]}") from error
    return trainer


def build_named(nodes: DictConfig, only: Collection[str] | None = None) -> dict[str, Any]:
    """Instantiate the children of a node, by name, without null children."""
    return {
        str(name): instantiate(node)
        for name, node in nodes.items()
        if node is not None and (only is None or name in only)
    }


@contextmanager
def memory_errors(key: str, batch_size: int) -> Iterator[None]:
    """Convert out-of-memory errors, of the device or of data loaders, to a message with a remedy.

    ``key`` is the config key of the batch size.
    """
    try:
        yield
    except RuntimeError as error:  # the CPU's allocator raises no more specific class
        if "DataLoader worker" in str(error):
            raise TrainingError(
                "a data loading process was killed, probably by the kernel because memory ran out; "
                f"start again, with fewer data.workers or a smaller {key} if it recurs"
            ) from error
        full = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not full:
            raise
        raise TrainingError(
            f"out of memory with {key}={batch_size}; try {key}={max(2, batch_size // 2)}"
        ) from error


# --- Lightning loggers for the training curves of a classifier, opened and closed safely


@contextmanager
def open_loggers(cfg: DictConfig) -> Iterator[list[Logger]]:
    """Open the configured loggers and close them after training."""
    # Runs can share a store (MLflow), which only a single process at a time may create.
    with FileLock(Path(str(cfg.outputs)) / ".loggers.lock"):
        loggers: list[Any] = list(build_named(cfg.logger).values())
        for logger in loggers:
            if isinstance(logger, CSVLogger):
                curve = Path(logger.log_dir) / "metrics.csv"
                if curve.is_file():  # of stopped training, which the logger would delete
                    before = len(list(curve.parent.glob("metrics-*.csv")))
                    curve.rename(curve.with_stem(f"metrics-{before + 1}"))
            _ = logger.experiment
    try:
        yield loggers
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                # Otherwise the next run in this process would log to the same W&B run.
                logger.experiment.finish()
