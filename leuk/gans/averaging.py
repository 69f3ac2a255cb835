"""A running average of the generator's weights, which samples better than the last ones do."""

import copy

import torch
from torch import nn

_RAMP = 10
"""Updates that the average needs to forget the initial weights, times ten."""


class Averaged(nn.Module):
    """Exponential moving average of a network, batch statistics included (Yazici et al. 2019).

    torch's ``AveragedModel`` asks the device for its count at every update; here the count is the
    caller's, so that nothing waits.

    Args:
        network: what is averaged; its copy is in :attr:`module`.
        decay: weight of the past once the ramp is over.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    def train(self, mode: bool = True) -> "Averaged":
        """Stay in evaluation mode, whatever the networks around do."""
        return super().train(False)

    @torch.no_grad()
    def update(self, network: nn.Module, updates: int) -> None:
        """Take in the weights after ``updates`` updates."""
        decay = min(self.decay, (1 + updates) / (_RAMP + updates))
        past, now = self.module.state_dict(), network.state_dict()
        floats = [name for name, value in past.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [past[name] for name in floats], [now[name] for name in floats], 1 - decay
        )
        for name in past.keys() - set(floats):
            past[name].copy_(now[name])
