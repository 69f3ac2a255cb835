"""Differentiable augmentation of what a discriminator sees, real and made alike.

With few images a discriminator learns them by heart; seeing every image moved and turned, it
cannot (Zhao et al. 2020). What moves in from outside the frame is black, as around every cell.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from leuk.config.ranges import Share

_BLACK = -1.0


@dataclass(frozen=True)
class DiffAugment:
    """A recipe; each image of a batch draws for itself.

    Attributes:
        turns: mirror and turn by quarters; all eight are as likely, and no pixel is resampled.
        shift: largest shift, share of the side, either way, on each axis, in whole pixels.
        stain: largest change of each colour's strength, share, either way.
    """

    turns: bool = True
    shift: Share = 0.0
    stain: Share = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        """Change every image of a batch ``(B, 3, R, R)`` with values in [-1, 1]."""
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
    """Mirror and turn images ``(B, C, R, R)``, each by its own number ``(B,)`` from 0 to 7."""
    left, up, across = ((which >> bit & 1).bool().view(-1, 1, 1, 1) for bit in range(3))
    images = torch.where(left, images.flip(3), images)
    images = torch.where(up, images.flip(2), images)
    return torch.where(across, images.transpose(2, 3), images)


def shifted(images: Tensor, offsets: Tensor) -> Tensor:
    """Move images ``(B, C, R, R)`` by whole pixels ``(2, B)``, down and right; black moves in."""
    side = images.shape[-1]
    places = torch.arange(side, device=images.device)
    rows, columns = (places - offset[:, None] for offset in offsets)  # (B, R) each
    down, across = ((place >= 0) & (place < side) for place in (rows, columns))
    inside = down[:, :, None] & across[:, None]
    rows, columns = rows.clamp(0, side - 1), columns.clamp(0, side - 1)
    which = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).where(inside[:, None], _BLACK)
