"""Penalties on the gradient of a discriminator, each image by itself, in float32.

Half precision would lose the small gradients that they measure, so autocast is off in here.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Judge = Callable[[Tensor], Tensor]
"""From images ``(B, 3, R, R)`` to scores ``(B, 1)``."""


def gradient_penalty(judge: Judge, real: Tensor, made: Tensor, shares: Tensor) -> Tensor:
    """Mean of (norm - 1)^2 of the gradient between real and made images.

    Args:
        judge: the critic.
        real: ``(B, 3, R, R)``.
        made: likewise, without a graph.
        shares: ``(B, 1, 1, 1)`` in [0, 1], of the real image at each point.

    Source:
        Gulrajani et al. 2017, section 4, without its weight.
    """
    between = made + shares * (real - made)
    return (_norms_squared(judge, between).clamp(min=_TINY).sqrt() - 1).square().mean()


def r1_penalty(judge: Judge, real: Tensor) -> Tensor:
    """Half the mean squared norm of the gradient at real images (Mescheder et al. 2018, R1)."""
    return _norms_squared(judge, real).mean() / 2


_TINY = 1e-12
"""Below the root of which its slope is taken as none."""


def _norms_squared(judge: Judge, images: Tensor) -> Tensor:
    """Squared norm ``(B,)`` of each score's gradient by its image."""
    with torch.autocast(images.device.type, enabled=False):
        points = images.detach().float().requires_grad_(True)
        scores = judge(points)
        (gradients,) = torch.autograd.grad(scores.sum(), points, create_graph=True)
        return gradients.square().sum(dim=(1, 2, 3))
