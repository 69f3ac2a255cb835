"""Share of a map in the cell's border, its interior, and the background.

The thesis claims that models look at "cell borders". That holds if the border band has a larger
share of the attribution than of the area; the checks report both.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from skimage.measure import label, regionprops
from torch import Tensor

from leuk.explain.perturb import cell_mask
from leuk.metrics.arrays import Floats

Mask = npt.NDArray[np.bool_]

REGIONS = ("border", "interior", "cell", "background")
"""Border and interior make up the cell; cell and background make up the image."""

BAND = 0.1
"""Width of the border band, as a share of the cell's diameter."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Masks of image regions, on the CPU.

    Attributes:
        border: ``bool (B, R, R)``, the band of the cell along its outline.
        interior: ``bool (B, R, R)``, the cell without the band.
    """

    border: Tensor
    interior: Tensor

    def of(self, name: str) -> Tensor:
        """Mask ``bool (B, R, R)`` of one of :data:`REGIONS`."""
        cell = self.border | self.interior
        return {
            "border": self.border,
            "interior": self.interior,
            "cell": cell,
            "background": ~cell,
        }[name]


def regions_of(images: Tensor, band: float = BAND) -> Regions:
    """Divide images into :data:`REGIONS`.

    The cell is the largest connected component that is not black, with its holes filled; all else
    is background. The border is as wide as ``band`` times the equivalent diameter of the cell, at
    least one pixel; the image's edge is no border.

    Args:
        images: ``(B, 3, R, R)`` in [0, 1].
        band: width of the border, as a share of the diameter of the disc with the cell's area.
    """
    cells = [_largest(mask) for mask in cell_mask(images).cpu().numpy()]
    borders = [_border(cell, band) for cell in cells]
    cell, border = (torch.from_numpy(np.stack(masks)) for masks in (cells, borders))
    return Regions(border, cell & ~border)


def share_in(maps: Tensor, part: Tensor, whole: Tensor | None = None) -> tuple[Floats, Floats]:
    """Shares of attribution and of area that a region has.

    If the first is larger than the second, the map is concentrated on the region.

    Args:
        maps: ``(B, R, R)`` on the CPU; negative values count as 0.
        part: mask of the region, ``bool (B, R, R)`` on the CPU.
        whole: mask that the shares refer to, ``bool (B, R, R)`` on the CPU; None for the image.

    Returns:
        Two ``float64 (B,)`` in [0, 1]; NaN if ``whole`` is empty or has no positive attribution.
    """
    whole = torch.ones_like(part) if whole is None else whole
    values = maps.double().clamp(min=0)
    shares = (values * (part & whole)).sum(dim=(1, 2)) / (values * whole).sum(dim=(1, 2))
    areas = (part & whole).sum(dim=(1, 2)).double() / whole.sum(dim=(1, 2))
    return shares.numpy(), areas.numpy()


def region_shares(maps: Tensor, regions: Regions) -> dict[str, Floats]:
    """Shares of a method's attribution in every region.

    Args:
        maps: ``(B, R, R)`` on the CPU.
        regions: regions of the same images.

    Returns:
        ``float64 (B,)`` by name. ``positive_<region>`` is the share of positive attribution in the
        region; ``positive_<region>_ratio`` divides it by ``area_<region>``, the region's share of
        the image, so that 1 is chance level. ``absolute_...`` are the same of absolute attribution.
        ``border_of_cell`` refers to the cell instead of the image, for maps that are zero outside
        the cell. NaN if a map has no such attribution, or the image no cell.
    """
    cell = regions.of("cell")
    empty = ~cell.flatten(1).any(dim=1).numpy()
    parts = {region: (regions.of(region), torch.ones_like(cell)) for region in REGIONS}
    parts["border_of_cell"] = (regions.border, cell)
    found: dict[str, Floats] = {}
    for kind, values in (("positive", maps), ("absolute", maps.abs())):
        for name, (part, whole) in parts.items():
            share, area = share_in(values, part, whole)
            share, area = (np.where(empty, np.nan, column) for column in (share, area))
            ratio = np.divide(share, area, out=np.full_like(share, np.nan), where=area > 0)
            found |= {
                f"area_{name}": area,
                f"{kind}_{name}": share,
                f"{kind}_{name}_ratio": ratio,
            }
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
