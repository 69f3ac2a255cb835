"""Notices a loss that is no number without waiting for the device at every step."""

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn

from leuk.errors import TrainingError

EVERY = 100
"""Steps between two looks at the flag; each look waits for the device."""


class FirstBad(nn.Module):
    """Remembers on the device the first step whose loss was not finite."""

    step: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.tensor(-1), persistent=False)

    def note(self, losses: Tensor, step: int) -> None:
        """Take down ``step`` if any of ``losses`` is NaN or infinite and none was before."""
        bad = ~torch.isfinite(losses.detach()).all()
        self.step = torch.where(bad & (self.step < 0), step, self.step)

    def look(self, strategy: Strategy, unit: str, advice: str) -> None:
        """Stop where a loss was not finite; all processes look together, so that none waits.

        Args:
            strategy: the trainer's.
            unit: what was counted.
            advice: what is kept and what to do.

        Raises:
            TrainingError: naming the first bad step of all processes.
        """
        first = int(strategy.reduce(self.step.clone(), reduce_op="max"))
        if first >= 0:
            raise TrainingError(f"the loss is not finite since {unit} {first}; {advice}")
