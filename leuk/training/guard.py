"""Notices a loss that is no number without waiting for the device at every step."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

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

    def look(self, reduce: Callable[[Tensor], Tensor]) -> int | None:
        """The first bad step of all processes, None where there is none.

        Args:
            reduce: gives the largest of a number over the processes, so that none goes on waiting
                for one that has stopped.
        """
        first = int(reduce(self.step.clone()))
        return first if first >= 0 else None
