"""Clean end of the process group of a distributed fit."""

import atexit

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import distributed


class EndsProcessGroup(Callback):
    """Callback that closes the process group before the Python interpreter exits.

    A Gloo thread may hold tensors of a finished collective, and the process aborts if they are
    released during interpreter shutdown (pytorch/pytorch#190489). Lightning closes only NCCL
    groups. After a failed fit the group stays open, because closing it could wait forever for the
    other processes.
    """

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the group at exit and not now, as code after the fit may still use it."""
        if distributed.is_available() and distributed.is_initialized():
            atexit.register(_close)


def _close() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
