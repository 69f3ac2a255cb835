"""Running averages of weights that ask the device for nothing, and the callback that keeps one."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from leuk.config.ranges import Share

_RAMP = 10
"""Updates that the average needs to forget the initial weights, times ten."""


@torch.no_grad()
def move_average(
    past: Mapping[str, Tensor], now: Mapping[str, Tensor], decay: float, updates: int
) -> None:
    """Take the state ``now`` into its exponential moving average ``past``, in place.

    Args:
        past: the average's ``state_dict``, batch statistics included.
        now: the network's, with the same names.
        decay: weight of the past once the ramp is over.
        updates: how many updates the network has had.
    """
    decay = min(decay, (1 + updates) / (_RAMP + updates))
    floats = [name for name, value in past.items() if value.is_floating_point()]
    torch._foreach_lerp_([past[name] for name in floats], [now[name] for name in floats], 1 - decay)
    for name in past.keys() - set(floats):
        past[name].copy_(now[name])


class WeightEMA(WeightAveraging):
    """Validates, checkpoints and ends with an exponential moving average of the weights.

    Lightning's own averaging asks the device for its count at every step; this one counts itself.

    Args:
        decay: weight of the past, from 0 to below 1.
    """

    def __init__(self, decay: Share = 0.99) -> None:
        super().__init__()
        self.decay = decay

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer.global_step <= self._latest_update_step:
            return
        assert self._average_model is not None
        past, now = self._average_model.module.state_dict(), pl_module.state_dict()
        move_average(past, now, self.decay, trainer.global_step)
        self._average_model.n_averaged += 1
        self._latest_update_step = trainer.global_step
