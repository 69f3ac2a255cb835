"""Where in a cell a map lies: its rim, its inside, or the background around it.

The thesis says that models look at "cell borders". That is so where the border band has more of a
map than its area would have of any map; the table of checks sets the two side by side.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from skimage.measure import label, regionprops
from torch import Tensor

from leuk.evaluate.vectors import Floats
from leuk.explain.perturb import cell_mask

Mask = npt.NDArray[np.bool_]

REGIONS = ("border", "interior", "cell", "background")
"""The first two are parts of the third; the third and the fourth are the image."""

BAND = 0.1
"""Width of the border band, as a share of the cell's diameter."""


@dataclass(frozen=True, eq=False)
class Regions:
    """The parts of images, on the CPU.

    Attributes:
        border: ``bool (B, R, R)``, the pixels of the cell next to its rim.
        interior: ``bool (B, R, R)``, its other pixels.
    """

    border: Tensor
    interior: Tensor

    def of(self, name: str) -> Tensor:
        """``bool (B, R, R)``, one of :data:`REGIONS`."""
        cell = self.border | self.interior
        return {
            "border": self.border,
            "interior": self.interior,
            "cell": cell,
            "background": ~cell,
        }[name]


def regions_of(images: Tensor, band: float = BAND) -> Regions:
    """Divide images into the parts of :data:`REGIONS`.

    The cell is the largest connected part of what is not black, with its holes filled; all else is
    background. The band is as wide as ``band`` times the diameter of the disc of the cell's area,
    at least one pixel. Where the image cuts a cell off there is no border.

    Args:
        images: ``(B, 3, R, R)`` in [0, 1].
        band: share of the diameter.
    """
    cells = [_largest(mask) for mask in cell_mask(images).cpu().numpy()]
    borders = [_border(cell, band) for cell in cells]
    cell, border = (torch.from_numpy(np.stack(masks)) for masks in (cells, borders))
    return Regions(border, cell & ~border)


def share_in(maps: Tensor, part: Tensor, whole: Tensor | None = None) -> tuple[Floats, Floats]:
    """How much of each map lies in a part, and how much of the area.

    Where the first is larger than the second, the map dwells on the part.

    Args:
        maps: ``(B, R, R)`` on the CPU; what is below 0 counts as 0.
        part: ``bool (B, R, R)`` on the CPU.
        whole: of what it is a part, likewise; the image where None.

    Returns:
        Two ``float64 (B,)`` in [0, 1]; NaN where the whole has nothing of a map, or is empty.
    """
    whole = torch.ones_like(part) if whole is None else whole
    values = maps.double().clamp(min=0)
    shares = (values * (part & whole)).sum(dim=(1, 2)) / (values * whole).sum(dim=(1, 2))
    areas = (part & whole).sum(dim=(1, 2)).double() / whole.sum(dim=(1, 2))
    return shares.numpy(), areas.numpy()


def region_shares(maps: Tensor, regions: Regions) -> dict[str, Floats]:
    """The table of a method.

    Args:
        maps: ``(B, R, R)`` on the CPU.
        regions: of the same images.

    Returns:
        By name ``float64 (B,)``. ``positive_<region>`` is the share of positive attribution in the
        region and ``positive_<region>_ratio`` that over ``area_<region>``, the region's share of
        the image: 1 is what chance gives. ``absolute_`` is the same of attribution without its
        sign. ``border_of_cell`` looks at the cell alone, which matters to maps that have nothing
        outside it. NaN where a map has nothing to share out, or the image no cell.
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
