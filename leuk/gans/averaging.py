"""A running average of the generator's weights, which samples better than the last ones do."""

import copy

from torch import nn

from leuk.training.averaging import move_average


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

    def update(self, network: nn.Module, updates: int) -> None:
        """Take in the weights after ``updates`` updates."""
        move_average(self.module.state_dict(), network.state_dict(), self.decay, updates)
