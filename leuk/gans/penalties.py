"""Penalties on the gradient of a discriminator or critic with respect to each image.

They run in float32 without autocast, as half precision would lose small gradients.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Adversary = Callable[[Tensor], Tensor]
"""Discriminator or critic: images ``(B, 3, R, R)`` to scores ``(B, 1)``."""


def gradient_penalty(critic: Adversary, real: Tensor, synthetic: Tensor, shares: Tensor) -> Tensor:
    """Mean of (norm - 1)^2 of the critic's gradient at points between real and synthetic images.

    Unweighted, after Gulrajani et al. 2017, section 4.

    Args:
        critic: the critic.
        real: real images ``(B, 3, R, R)``.
        synthetic: synthetic images ``(B, 3, R, R)``, detached from the generator.
        shares: share of the real image at each point, ``(B, 1, 1, 1)`` in [0, 1].
    """
    between = synthetic + shares * (real - synthetic)
    return (_norms_squared(critic, between).clamp(min=_TINY).sqrt() - 1).square().mean()


def r1_penalty(discriminator: Adversary, real: Tensor) -> Tensor:
    """Half the mean squared gradient norm at ``(B, 3, R, R)`` real images (Mescheder et al. 2018).

    Unweighted; the paper calls it R1.
    """
    return _norms_squared(discriminator, real).mean() / 2


_TINY = 1e-12
"""Lower limit of squared norms, as the slope of the square root is infinite at 0."""


def _norms_squared(adversary: Adversary, images: Tensor) -> Tensor:
    """Squared norm ``(B,)`` of the gradient of each image's score with respect to the image."""
    with torch.autocast(images.device.type, enabled=False):
        points = images.detach().float().requires_grad_(True)
        scores = adversary(points)
        (gradients,) = torch.autograd.grad(scores.sum(), points, create_graph=True)
        return gradients.square().sum(dim=(1, 2, 3))
