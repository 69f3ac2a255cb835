"""Running average of the generator's weights, which samples better than the latest weights."""

import copy

from torch import nn

from leuk.training.averaging import move_average


class Averaged(nn.Module):
    """Exponential moving average of a network, batch statistics included (Yazici et al. 2019).

    torch's ``AveragedModel`` reads its update count from the device at every update, which waits
    for the GPU; here the caller keeps the count.

    Args:
        network: network whose weights are averaged.
        decay: weight of the previous average after the first updates, in [0, 1).

    Attributes:
        module: copy of the network with the averaged weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    def train(self, mode: bool = True) -> "Averaged":
        """Stay in evaluation mode, even if the parent module is set to training."""
        return super().train(False)

    def update(self, network: nn.Module, updates: int) -> None:
        """Add the weights of ``network`` after its update number ``updates`` to the average."""
        move_average(self.module.state_dict(), network.state_dict(), self.decay, updates)
