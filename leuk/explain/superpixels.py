"""Superpixels of the cell: the parts that LIME shows and hides."""

import numpy as np
import numpy.typing as npt
import torch
from skimage.segmentation import slic
from torch import Tensor

from leuk.explain.perturb import cell_mask

_COMPACTNESS = 20.0
"""Of colour against place. At the paper's 10, 16 superpixels of a small image's noise run together
to a few; at 30 they are tiles that know nothing of the cell."""

_SMOOTHED = 1.0
"""Standard deviation, in pixels, of the smoothing before, for the same reason."""


def cell_superpixels(images: Tensor, count: int) -> Tensor:
    """Superpixels of each cell, by SLIC within its mask (Achanta et al. 2012; Irving 2016).

    The black around a cell is part of none. The same image gives the same superpixels, among
    whatever others.

    Args:
        images: ``(B, 3, R, R)`` in [0, 1].
        count: about how many a cell; a cell of fewer pixels has as many as it has pixels.

    Returns:
        ``int64 (B, R, R)`` on the CPU: 0 to K - 1 within a cell that has K superpixels, each of
        them there; -1 around it, and everywhere where there is no cell.
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
        # What no cluster took, as a single pixel or the whole of one cluster, is one more part.
        segments[mask] = np.unique(labels[mask], return_inverse=True)[1]
    return segments
