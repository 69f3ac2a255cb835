"""Launchers of a sweep: checks that they are installed, and each job's share of the host."""

import os
import shutil
from importlib.util import find_spec

import torch
from omegaconf import DictConfig, OmegaConf

from leuk.errors import ConfigError
from leuk.runs.trainer import uses_cuda

LOCAL_LAUNCHERS = ("joblib", "submitit_local")
"""Launchers that execute several runs on this host in parallel."""

LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
}
"""Package that each launcher requires, and the extra that installs it."""

_SUBMITS = ("sbatch", "srun")


def launcher_of(cfg: DictConfig) -> str:
    """Name of the launcher: ``basic``, or an option of ``hydra/launcher``.

    Args:
        cfg: config with its ``hydra`` node.
    """
    return str(cfg.hydra.runtime.choices.get("hydra/launcher", "basic"))


def runs_elsewhere(cfg: DictConfig) -> bool:
    """Return True if runs may be executed on hosts with other devices."""
    return launcher_of(cfg) == "submitit_slurm"


def check_launcher(cfg: DictConfig) -> None:
    """Refuse a launcher that is not installed, or SLURM on a host without it.

    Raises:
        ConfigError: the message names the package to install or an alternative.
    """
    name = launcher_of(cfg)
    if name not in LAUNCHERS:
        return
    package, extra = LAUNCHERS[name]
    if not _installed(package):
        raise ConfigError(f"hydra/launcher={name}: not installed; pip install 'leuk[{extra}]'")
    lacking = [program for program in _SUBMITS if shutil.which(program) is None]
    if name == "submitit_slurm" and lacking:
        raise ConfigError(
            f"hydra/launcher={name}: no SLURM on this host ({', '.join(lacking)} not found); start "
            "it on a login node, or choose hydra/launcher=joblib"
        )


def assign_devices(cfg: DictConfig, hydra_cfg: DictConfig) -> None:
    """Assign a job its share of this host if several run in parallel.

    A job gets the GPU with its number, unless ``trainer.devices`` names devices. Without GPUs it
    gets its share of the cores; joblib divides the cores itself.

    Args:
        cfg: config of the job; ``trainer.devices`` is changed.
        hydra_cfg: the ``hydra`` node.
    """
    launcher = hydra_cfg.runtime.choices.get("hydra/launcher")
    number = OmegaConf.select(hydra_cfg, "job.num", throw_on_missing=False)
    if launcher not in LOCAL_LAUNCHERS or number is None:
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


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
