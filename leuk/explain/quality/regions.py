"""Share of a map in the cell's border, its interior, and the background.

The thesis claims that models look at "cell borders". That holds if the border band has a larger
share of the attribution than of the area; the checks report both.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from skimage.measure import label, regionprops
from torch import Tensor

from leuk.data.decode import cell_mask
from leuk.metrics.arrays import Floats

Mask = npt.NDArray[np.bool_]

BAND = 0.1
"""Width of the border band, as a share of the cell's diameter."""


def regions_of(images: Tensor, band: float = BAND) -> dict[str, Tensor]:
    """Divide images into regions.

    The cell is the largest connected component that is not black, with its holes filled; all else
    is background. The border is as wide as ``band`` times the equivalent diameter of the cell, at
    least one pixel; the image's edge is no border.

    Returns:
        Masks ``bool (B, R, R)`` on the CPU. ``border`` and ``interior`` make up the ``cell``;
        ``cell`` and ``background`` make up the image.
    """
    cells = [_largest(mask) for mask in cell_mask(images).cpu().numpy()]
    borders = [_border(mask, band) for mask in cells]
    cell, border = (torch.from_numpy(np.stack(masks)) for masks in (cells, borders))
    return {"border": border, "interior": cell & ~border, "cell": cell, "background": ~cell}


def region_shares(maps: Tensor, regions: Mapping[str, Tensor]) -> dict[str, Floats]:
    """Shares of the attribution of maps ``(B, R, R)``, on the CPU, in every region of the images.

    Returns:
        ``float64 (B,)`` by name. ``positive_<region>`` is the share of positive attribution in the
        region; ``positive_<region>_ratio`` divides it by ``area_<region>``, the region's share of
        the image, so that 1 is chance level. ``absolute_...`` are the same of absolute attribution.
        ``border_of_cell`` refers to the cell instead of the image, for maps that are zero outside
        the cell. NaN if a map has no such attribution, or the image no cell.
    """
    cell = regions["cell"]
    empty = ~cell.flatten(1).any(dim=1).numpy()
    parts = {name: (region, torch.ones_like(cell)) for name, region in regions.items()}
    parts["border_of_cell"] = (regions["border"], cell)
    found: dict[str, Floats] = {}
    for kind, signed in (("positive", maps), ("absolute", maps.abs())):
        values = signed.double().clamp(min=0)
        for name, (part, whole) in parts.items():
            inside = (values * (part & whole)).sum(dim=(1, 2))
            lit = (part & whole).sum(dim=(1, 2)).double()
            share = (inside / (values * whole).sum(dim=(1, 2))).numpy()
            area = (lit / whole.sum(dim=(1, 2))).numpy()
            share, area = (np.where(empty, np.nan, column) for column in (share, area))
            found[f"area_{name}"] = area
            found[f"{kind}_{name}"] = share
            found[f"{kind}_{name}_ratio"] = np.divide(
                share, area, out=np.full_like(share, np.nan), where=area > 0
            )
    return found


def _largest(mask: Mask) -> Mask:
    if not mask.any():
        return mask
    largest = max(regionprops(label(mask)), key=lambda part: part.area)
    cell = np.zeros_like(mask)
    cell[tuple(largest.coords.T)] = True
    return np.asarray(ndimage.binary_fill_holes(cell), np.bool_)


def _border(cell: Mask, band: float) -> Mask:
    if cell.all():
        return np.zeros_like(cell)
    width = max(1.0, band * 2 * np.sqrt(cell.sum() / np.pi))
    return np.asarray(cell & (ndimage.distance_transform_edt(cell) <= width))
