"""Contact sheet of conventional augmentation."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid, save_image

DRAWS = 8


def save_contact_sheet(path: Path, images: Tensor, transforms: Callable[[Tensor], Tensor]) -> None:
    """Write a row per image: the original and eight random augmentations.

    Args:
        path: PNG file to write.
        images: images ``(N, 3, H, W)`` in [0, 1].
        transforms: augmentation of a batch of images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        columns = [images, *(transforms(images.clone()) for _ in range(DRAWS))]
    tiles = torch.stack(columns, dim=1).flatten(0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(make_grid(tiles, nrow=DRAWS + 1, padding=2, pad_value=0.35), path)
