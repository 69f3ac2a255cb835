"""Launchers for parallel runs, as options of ``hydra/launcher``.

They are Hydra's plugins with other defaults. The options are defined here too, so that naming a
plugin that is not installed gives an error with the package to install.
"""

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

JOBLIB: dict[str, Any] = {
    "_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    # One run per GPU, or per core without GPUs.
    "n_jobs": "${leuk.jobs:${trainer.accelerator}}",
    "backend": None,
    "prefer": "processes",
    "require": None,
    "verbose": 0,
    "timeout": None,
    # Dispatch a run only when a process is free for it.
    "pre_dispatch": "n_jobs",
    "batch_size": 1,
    "temp_folder": None,
    "max_nbytes": None,
    "mmap_mode": "r",
}

_SUBMITIT: dict[str, Any] = {
    "submitit_folder": "${hydra.sweep.dir}/.submitit/%j",
    # One day; a run that is cut off resumes from its last epoch when the sweep is started again.
    "timeout_min": 1440,
    "cpus_per_task": None,
    "gpus_per_node": None,
    "tasks_per_node": 1,
    "mem_gb": None,
    "nodes": 1,
    "name": "${hydra.job.name}",
    "stderr_to_stdout": True,
}

LOCAL: dict[str, Any] = {
    "_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    **_SUBMITIT,
}

SLURM: dict[str, Any] = {
    "_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    **_SUBMITIT,
    "partition": None,
    "qos": None,
    "comment": None,
    "constraint": None,
    "exclude": None,
    "gres": None,
    "cpus_per_gpu": None,
    "gpus_per_task": None,
    "mem_per_gpu": None,
    "mem_per_cpu": None,
    "account": None,
    "signal_delay_s": 120,
    "max_num_timeout": 0,
    "additional_parameters": {},
    "array_parallelism": 256,
    "setup": None,
}


def register_launchers() -> None:
    """Register the launchers with Hydra, replacing the plugins' own defaults."""
    Plugins.instance()  # discovers the plugins, which register their defaults once
    store = ConfigStore.instance()
    group = "hydra/launcher"
    store.store(group=group, name="joblib", node=JOBLIB)
    store.store(group=group, name="submitit_local", node=LOCAL)
    store.store(group=group, name="submitit_slurm", node=SLURM)
