"""Running averages of weights, computed without waiting for the device."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from leuk.config.ranges import Share

_RAMP = 10
"""Length of the initial ramp: after n updates the past weighs at most (1 + n) / (_RAMP + n)."""


@torch.no_grad()
def move_average(
    past: Mapping[str, Tensor], now: Mapping[str, Tensor], decay: float, updates: int
) -> None:
    """Update an exponential moving average of weights in place.

    Args:
        past: ``state_dict`` of the average, batch statistics included.
        now: ``state_dict`` of the network, with the same names.
        decay: weight of the past after the initial ramp, in [0, 1).
        updates: number of updates of the network so far.
    """
    decay = min(decay, (1 + updates) / (_RAMP + updates))
    floats = [name for name, value in past.items() if value.is_floating_point()]
    torch._foreach_lerp_([past[name] for name in floats], [now[name] for name in floats], 1 - decay)
    for name in past.keys() - set(floats):
        past[name].copy_(now[name])


class WeightEMA(WeightAveraging):
    """Exponential moving average of the weights, used for validation, checkpoints and the result.

    Lightning's averaging reads its step count from the device at every step, which waits for the
    GPU; this callback takes the trainer's count.

    Args:
        decay: weight of the past after the initial ramp, in [0, 1).
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
