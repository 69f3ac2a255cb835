"""Processes that shared a fit let go of each other before they end."""

import atexit

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import distributed


class EndsProcessGroup(Callback):
    """Has a process that fitted with others close their process group before Python is gone.

    A thread of Gloo may still hold tensors of a collective that has ended, and a process that it
    gives them back to too late is aborted (pytorch/pytorch#190489); Lightning closes groups of NCCL
    only. A fit that fails has nothing closed, as the others might be waited for in vain.
    """

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called by Lightning; the group is left for what follows the fit, such as its result."""
        if distributed.is_available() and distributed.is_initialized():
            atexit.register(_close)


def _close() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
