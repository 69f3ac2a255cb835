"""Conventional augmentation of training batches on the device, with one warp per batch.

Each image has its own random parameters. Pixels from outside the image are black, as in C-NMC.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from leuk.config.schema import NotNegative, Share


@dataclass(frozen=True)
class Transforms:
    """Random changes of images with their limits, drawn uniformly; 0 or False disables one."""

    rotation: NotNegative = 0.0  # angle in degrees, in both directions
    translate: Share = 0.0  # shift along each axis, as a share of the side
    shear: NotNegative = 0.0  # angle in degrees, in both directions
    zoom: Share = 0.0  # change of scale; 0.15 draws from 0.85 to 1.15
    horizontal_flip: bool = False  # left to right, with probability 0.5
    vertical_flip: bool = False  # top to bottom, with probability 0.5
    brightness: Share = 0.0  # relative change of all channels together
    color: Share = 0.0  # relative change of each channel separately
    contrast: Share = 0.0  # relative change of the distance from the mean of the pixels above 0

    def __call__(self, images: Tensor) -> Tensor:
        """Augment a batch ``(B, 3, H, W)`` with values in [0, 1]."""
        flips = self.horizontal_flip or self.vertical_flip
        if self.rotation or self.translate or self.shear or self.zoom or flips:
            images = warp(images, self._matrices(len(images), images.device))
        if self.brightness or self.color:
            images = images * self._gains(len(images), images.device)
        if self.contrast:
            images = self._contrasted(images)
        recolored = self.brightness or self.color or self.contrast
        return images.clamp(0, 1) if recolored else images

    def _matrices(self, count: int, device: torch.device) -> Tensor:
        """Draw inverse affine maps ``(B, 2, 3)`` in the [-1, 1] coordinates of ``affine_grid``."""
        angle, shear, zoom, right, down = _symmetric(5, count, device=device)
        angle = angle * math.radians(self.rotation)
        slope = torch.tan(shear * math.radians(self.shear))
        scale = 1 / (1 + zoom * self.zoom)
        flip_x = _signs(count, device) if self.horizontal_flip else torch.ones_like(scale)
        flip_y = _signs(count, device) if self.vertical_flip else torch.ones_like(scale)
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        # The side has length 2 in [-1, 1] coordinates.
        right, down = 2 * self.translate * right, 2 * self.translate * down
        return torch.stack(
            [
                torch.stack([flip_x * cos, flip_x * (slope * cos - sin), right], dim=1),
                torch.stack([flip_y * sin, flip_y * (slope * sin + cos), down], dim=1),
            ],
            dim=1,
        )

    def _gains(self, count: int, device: torch.device) -> Tensor:
        together = 1 + self.brightness * _symmetric(count, 1, 1, 1, device=device)
        apart = 1 + self.color * _symmetric(count, 3, 1, 1, device=device)
        return together * apart

    def _contrasted(self, images: Tensor) -> Tensor:
        lit = (images.amax(dim=1, keepdim=True) > 0).to(images.dtype)
        area = lit.sum(dim=(2, 3), keepdim=True).clamp(min=1)
        mean = (images * lit).sum(dim=(2, 3), keepdim=True) / area
        gain = 1 + self.contrast * _symmetric(len(images), 1, 1, 1, device=images.device)
        return lit * (mean + gain * (images - mean))


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Resample images ``(B, C, H, W)`` by inverse affine maps ``(B, 2, 3)``; padding is black."""
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def _symmetric(*shape: int, device: torch.device) -> Tensor:
    """Draw uniform numbers in [-1, 1)."""
    return torch.rand(shape, device=device) * 2 - 1


def _signs(count: int, device: torch.device) -> Tensor:
    """Draw -1 or 1 with equal probability."""
    return torch.randint(0, 2, (count,), device=device) * 2.0 - 1
