"""Differentiable augmentation of a discriminator's input, for real and synthetic images alike.

It keeps a discriminator from memorizing a small training set (Zhao et al. 2020). Pixels shifted in
from outside the frame are black, like the background of every image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from leuk.config.schema import Share

_BLACK = -1.0


@dataclass(frozen=True)
class DiffAugment:
    """Random augmentation, drawn separately for each image of a batch.

    Attributes:
        turns: flip and rotate by multiples of 90 degrees; the eight results are equally likely, and
            no pixel is interpolated.
        shift: largest shift along each axis and in either direction, as a share of the side;
            rounded to whole pixels.
        stain: largest relative change of each color channel, in either direction.
    """

    turns: bool = True
    shift: Share = 0.0
    stain: Share = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        """Augmented images ``(B, 3, R, R)`` in [-1, 1] of images of the same shape and range."""
        if self.turns:
            images = turned(images, torch.randint(8, (len(images),), device=images.device))
        reach = round(self.shift * images.shape[-1])
        if reach:
            offsets = torch.randint(-reach, reach + 1, (2, len(images)), device=images.device)
            images = shifted(images, offsets)
        if self.stain:
            gains = 1 + self.stain * (2 * torch.rand(len(images), 3, 1, 1).to(images) - 1)
            images = ((images + 1) * gains - 1).clamp(max=1)
        return images


def turned(images: Tensor, which: Tensor) -> Tensor:
    """Flip and rotate images ``(B, C, R, R)``; ``which (B,)`` from 0 to 7 selects the symmetry."""
    left, up, across = ((which >> bit & 1).bool().view(-1, 1, 1, 1) for bit in range(3))
    images = torch.where(left, images.flip(3), images)
    images = torch.where(up, images.flip(2), images)
    return torch.where(across, images.transpose(2, 3), images)


def shifted(images: Tensor, offsets: Tensor) -> Tensor:
    """Shift images ``(B, C, R, R)`` down and right by ``offsets (2, B)`` pixels, filling black."""
    side = images.shape[-1]
    indices = torch.arange(side, device=images.device)
    rows, columns = (indices - offset[:, None] for offset in offsets)  # (B, R) each
    down, across = ((source >= 0) & (source < side) for source in (rows, columns))
    inside = down[:, :, None] & across[:, None]
    rows, columns = rows.clamp(0, side - 1), columns.clamp(0, side - 1)
    which = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).where(inside[:, None], _BLACK)
