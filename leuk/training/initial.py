"""Initial weights of the thesis's stack."""

from torch import nn


def glorot(layer: nn.Module) -> None:
    """Glorot uniform weights and biases of 0, as Keras starts from; for :meth:`Module.apply`."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
