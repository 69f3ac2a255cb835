"""Structural similarity of synthetic to real images, and within a set.

SSIM is dominated by the black background: two real images reach 0.86, a real and a black image
0.78. It is therefore computed inside the cells, too, and never reported by itself.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from leuk.evaluate.morphology import lit
from leuk.evaluate.vectors import Images, check_images

Rows = npt.NDArray[np.int64]

_BATCH = 64
_PAIRS = 200
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the scales, finest first (Wang et al. 2003)."""

_WINDOW = 11
_SMALLEST = 16


def nearest_similarity(synthetic: Images, real: Images, nearest: Rows) -> dict[str, float | None]:
    """Compute the mean SSIM of synthetic images and their nearest real images.

    Args:
        synthetic: ``uint8 (N, R, R, 3)``.
        real: ``uint8 (M, R, R, 3)``.
        nearest: ``(N,)`` row in ``real`` of the nearest image of each synthetic image.

    Returns:
        ``ssim`` over whole images (Wang et al. 2004) and ``ssim_mask`` over the union of the two
        cell masks, None if no pair has a lit pixel.

    Raises:
        ValueError: images are not 8-bit, or smaller than 16 pixels.
    """
    for images in (synthetic, real):
        _check(images)
    whole: list[float] = []
    within: list[float] = []
    for start in range(0, len(synthetic), _BATCH):
        one, other = synthetic[start : start + _BATCH], real[nearest[start : start + _BATCH]]
        similarity = _similarity_map(_scaled(one), _scaled(other))
        whole += similarity.mean(dim=(1, 2)).tolist()
        union = torch.from_numpy(lit(one) | lit(other))
        area = union.sum(dim=(1, 2))
        inside = (similarity * union).sum(dim=(1, 2)) / area
        within += inside[area > 0].tolist()
    cell = float(np.mean(within)) if within else None
    return {"ssim": float(np.mean(whole)), "ssim_mask": cell}


def diversity(images: Images, seed: int) -> float:
    """Compute 1 minus the mean multi-scale SSIM of 200 random pairs (Odena et al. 2017).

    It is 0 for identical images. Images of 224 pixels have all five scales, of 64 pixels three
    and of 32 pixels two, so values at different resolutions cannot be compared.

    Raises:
        ValueError: images are not 8-bit, smaller than 16 pixels, or fewer than two.
    """
    _check(images)
    if len(images) < 2:
        raise ValueError("diversity needs at least two images, found one")
    generator = np.random.default_rng(seed)
    first = generator.integers(len(images), size=_PAIRS)
    # An image is never paired with itself.
    second = (first + generator.integers(1, len(images), size=_PAIRS)) % len(images)
    similar = [
        multiscale_structural_similarity_index_measure(
            _scaled(images[first[start : start + _BATCH]]),
            _scaled(images[second[start : start + _BATCH]]),
            data_range=1.0,
            betas=_scale_weights(images.shape[1]),
            reduction="none",
        )
        for start in range(0, _PAIRS, _BATCH)
    ]
    return 1 - float(torch.cat(similar).mean())


def _scale_weights(side: int) -> tuple[float, ...]:
    """Weights with sum 1 of the scales that torchmetrics can compute at this resolution."""
    scales = len(_WEIGHTS)
    while scales > 1 and side // (scales - 1) ** 2 < _WINDOW:
        scales -= 1
    kept = _WEIGHTS[:scales]
    return tuple(weight / sum(kept) for weight in kept)


def _similarity_map(one: Tensor, other: Tensor) -> Tensor:
    """SSIM at each pixel, averaged over channels, ``(B, R, R)``."""
    _, similarity = structural_similarity_index_measure(
        one, other, data_range=1.0, reduction="none", return_full_image=True
    )
    return similarity.mean(dim=1)


def _scaled(images: Images) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def _check(images: Images) -> None:
    check_images(images)
    if images.shape[1] < _SMALLEST:
        raise ValueError(f"SSIM needs {_SMALLEST} pixels per side, found {images.shape[1]}")
