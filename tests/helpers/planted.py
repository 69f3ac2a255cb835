"""Images whose class depends on a known region, and classifiers fitted on them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from leuk.classifiers.base import Classifier

SIDE = 32
TILE = 8
RADIUS = 15
INNER = (
    (0, 1),
    (0, 2),
    (1, 0),
    (1, 1),
    (1, 2),
    (1, 3),
    (2, 0),
    (2, 1),
    (2, 2),
    (2, 3),
    (3, 1),
    (3, 2),
)
"""Tiles, by row and column, that are mostly on the cell."""

_HUES = 2 * torch.pi * torch.arange(8)[:, None] / 8 + torch.tensor([0.0, 2.1, 4.2])
COLORS = 0.4 + 0.3 * torch.cos(_HUES)[torch.tensor([1, 2, 3, 5, 6, 7, 0, 4])]
"""Eight evenly spaced hues: six without information, then those of the informative tile of a
healthy and of a leukemic cell."""


@dataclass(frozen=True)
class Planted:
    """Images of cells as mosaics of tiles.

    Attributes:
        images: ``float32 (B, 3, 32, 32)`` in [0, 1], black outside the cell.
        labels: ``int64 (B,)``.
        regions: ``bool (B, 32, 32)``: the tile whose color is the class, on the cell.
    """

    images: Tensor
    labels: Tensor
    regions: Tensor

    @property
    def area_share(self) -> float:
        """Mean share of the cell's area in the region."""
        return float((self.regions.sum(dim=(1, 2)) / cell().sum()).mean())

    def share(self, maps: Tensor) -> float:
        """Mean share of the maps' positive values on the cell that are in the region."""
        positive = maps.clamp(min=0) * cell()
        inside = (positive * self.regions).sum(dim=(1, 2))
        return float((inside / positive.sum(dim=(1, 2))).nanmean())


def plant(count: int, seed: int) -> Planted:
    """Images of the same cell with different tiles, determined by the seed."""
    generator = torch.Generator().manual_seed(seed)
    tiles = torch.randint(0, 6, (count, SIDE // TILE, SIDE // TILE), generator=generator)
    labels = torch.randint(0, 2, (count,), generator=generator)
    places = torch.tensor(INNER)[torch.randint(0, len(INNER), (count,), generator=generator)]
    tiles[torch.arange(count), places[:, 0], places[:, 1]] = 6 + labels
    pixels = tiles.repeat_interleave(TILE, 1).repeat_interleave(TILE, 2)
    images = COLORS[pixels].permute(0, 3, 1, 2)
    images = images + 0.05 * torch.randn(images.shape, generator=generator)
    return Planted(images.clamp(0.05, 1) * cell(), labels, (pixels > 5) & cell())


def cell() -> Tensor:
    """Mask of the cell, ``bool (32, 32)``."""
    away = torch.arange(SIDE) - (SIDE - 1) / 2
    return away[:, None] ** 2 + away**2 <= RADIUS**2


def scaled(classifier: Classifier) -> Classifier:
    """Set the channel statistics of a classifier to those of such images."""
    classifier.normalize_by((0.3, 0.3, 0.3), (0.25, 0.25, 0.25))
    return classifier


def fit(classifier: Classifier, steps: int, rate: float = 2e-3) -> float:
    """Fit on new images in each step; returns the accuracy on other images."""
    optimizer = torch.optim.Adam(scaled(classifier).parameters(), lr=rate)
    classifier.train()
    for step in range(steps):
        batch = plant(64, seed=step)
        loss = torch.nn.functional.cross_entropy(classifier(batch.images), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    classifier.eval()
    held = plant(256, seed=10_000)
    with torch.no_grad():
        return float((classifier(held.images).argmax(dim=1) == held.labels).float().mean())
