"""Where the cells of a sweep run: launchers that must be there, and a share of the host each."""

import os
import shutil
from importlib.util import find_spec

import torch
from omegaconf import DictConfig, OmegaConf

from leuk.errors import ConfigError
from leuk.runs.device import uses_cuda

LOCAL_LAUNCHERS = ("joblib", "submitit_local")
"""Launchers that run several cells on this host at once."""

LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
}
"""What each launcher needs: a package, and the extra that installs it."""

_SUBMITS = ("sbatch", "srun")


def launcher_of(cfg: DictConfig) -> str:
    """What runs the cells: ``basic``, or an option of ``hydra/launcher``; needs ``cfg.hydra``."""
    return str(cfg.hydra.runtime.choices.get("hydra/launcher", "basic"))


def runs_elsewhere(cfg: DictConfig) -> bool:
    """Whether the cells may run on hosts that have other devices than this one."""
    return launcher_of(cfg) == "submitit_slurm"


def check_launcher(cfg: DictConfig) -> None:
    """Refuse a launcher that is not installed, or SLURM where there is none.

    Raises:
        ConfigError: saying what to install, or what to choose instead.
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
            "it where jobs are submitted, or choose hydra/launcher=joblib"
        )


def place(cfg: DictConfig, hydra_cfg: DictConfig) -> None:
    """Give a job its share of this host where several run at once.

    That is the GPU of its number, unless devices are named, or else its part of the cores; joblib
    sees to the cores itself.
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
    """How many cells run at once on this host by default: one a GPU, or one a core without."""
    return torch.cuda.device_count() if uses_cuda(accelerator) else os.cpu_count() or 1


def batch_of(cfg: DictConfig, hydra_cfg: DictConfig) -> int | None:
    """How many cells the launcher is given at once; None for all, where it sees to that itself."""
    if hydra_cfg.runtime.choices.get("hydra/launcher") != "submitit_local":
        return None
    return jobs_at_once(OmegaConf.select(cfg, "trainer.accelerator") or "auto")


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of a package above it
        return False
