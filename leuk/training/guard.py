"""Detection of NaN or infinite losses without waiting for the device at every step."""

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn

from leuk.errors import TrainingError

EVERY = 100
"""Steps from one check to the next; each check waits for the device."""


class FirstBad(nn.Module):
    """First step with a NaN or infinite loss, kept on the device; -1 before one occurs."""

    step: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.tensor(-1), persistent=False)

    def note(self, losses: Tensor, step: int) -> None:
        """Record ``step`` if any of ``losses`` is NaN or infinite and no earlier loss was."""
        bad = ~torch.isfinite(losses.detach()).all()
        self.step = torch.where(bad & (self.step < 0), step, self.step)

    def check(self, strategy: Strategy, unit: str, advice: str) -> None:
        """Stop all processes together if a loss of any of them was NaN or infinite.

        A process that continued alone would wait for the others forever.

        Args:
            strategy: strategy of the trainer.
            unit: unit of the step numbers for the message, such as ``step``.
            advice: remedy for the message.

        Raises:
            TrainingError: a loss was NaN or infinite; the message names the first such step.
        """
        first = int(strategy.reduce(self.step.clone(), reduce_op="max"))
        if first >= 0:
            raise TrainingError(f"the loss became NaN or infinite at {unit} {first}; {advice}")
