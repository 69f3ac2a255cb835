"""Superpixels of the cell, which LIME shows and hides."""

import numpy as np
import numpy.typing as npt
import torch
from skimage.segmentation import slic
from torch import Tensor

from leuk.explain.perturb import cell_mask

_COMPACTNESS = 20.0
"""Weight of position against color in SLIC. At the paper's 10, pixel noise in small images merges
16 superpixels to a few; at 30, superpixels become tiles that ignore the cell's structure."""

_SMOOTHED = 1.0
"""Standard deviation of the preceding smoothing, in pixels, against the same noise."""


def cell_superpixels(images: Tensor, count: int) -> Tensor:
    """Superpixels of each cell, by SLIC within its mask (Achanta et al. 2012; Irving 2016).

    The superpixels of an image do not depend on the other images of the batch.

    Args:
        images: ``(B, 3, R, R)`` in [0, 1].
        count: approximate number of superpixels per image; at most one per pixel of the cell.

    Returns:
        ``int64 (B, R, R)`` on the CPU: 0 to K - 1, all used, within a cell with K superpixels; -1
        on the background.
    """
    masks = cell_mask(images).cpu().numpy()
    pixels = images.permute(0, 2, 3, 1).float().cpu().numpy()
    found = [_segmented(image, mask, count) for image, mask in zip(pixels, masks, strict=True)]
    return torch.from_numpy(np.stack(found))


def _segmented(
    image: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], count: int
) -> npt.NDArray[np.int64]:
    segments = np.full(mask.shape, -1, dtype=np.int64)
    if mask.any():
        labels = slic(
            image, count, _COMPACTNESS, sigma=_SMOOTHED, mask=mask, start_label=1, channel_axis=-1
        )
        # Pixels without a cluster, such as a mask of a single pixel, form one more superpixel.
        segments[mask] = np.unique(labels[mask], return_inverse=True)[1]
    return segments
