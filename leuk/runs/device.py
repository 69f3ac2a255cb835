"""Device detection, and the precision and memory layout that suit the device."""

import logging
import os
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from leuk.errors import ConfigError
from leuk.runs.identity import choice_of

log = logging.getLogger(__name__)


def uses_cuda(accelerator: str) -> bool:
    """Return True if ``trainer.accelerator`` resolves to CUDA on this host."""
    return accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available()


def check_device(cfg: DictConfig) -> None:
    """Refuse a GPU on a host without one.

    Args:
        cfg: composed config with its ``hydra`` node.

    Raises:
        ConfigError: with the reason and an alternative.
    """
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
    name = torch.cuda.get_device_name(root) if root.type == "cuda" else _cpu_name()
    return {
        "name": name,
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
    """Keep convolution weights in channels-last memory, the layout of the images.

    Args:
        enabled: False keeps the default layout.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        layout = torch.channels_last if self.enabled else torch.contiguous_format
        pl_module.to(memory_format=layout)


class TF32(Callback):
    """Allow TF32 for float32 matrix products and convolutions: faster, with 10 bits of mantissa.

    Args:
        enabled: False sets full float32, even if an earlier run in this process allowed TF32.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        torch.set_float32_matmul_precision("high" if self.enabled else "highest")
        # Convolutions have a separate setting, on by default.
        torch.backends.cudnn.allow_tf32 = self.enabled
