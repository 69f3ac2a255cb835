"""Size, shape, color and grain of cells, and how far two sets differ in them.

What a haematologist looks at, without any network: it shows what features trained on photographs
may miss. The mask comes from the black background of the segmented cells.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.stats import wasserstein_distance
from skimage.measure import label, regionprops

from leuk.data.decode import LIT
from leuk.evaluate.features import Features
from leuk.evaluate.vectors import Images, check_images

Mask = npt.NDArray[np.bool_]

MEASURES = ("area", "eccentricity", "solidity", "red", "green", "blue", "texture", "specks")
"""What is measured of each cell, in the order of :attr:`Morphology.values`."""

_LEAST = np.array([0.01, 0.01, 0.01, 1.0, 1.0, 1.0, 1.0, 0.01])
"""The smallest spread that each measure is counted in: specks hardly ever differ in real cells, and
one pixel too many must not outweigh all the rest."""

_RIM = 2
"""Pixels next to the background that the texture leaves out: there it would measure the edge."""


@dataclass(frozen=True, eq=False)
class Morphology:
    """One row per cell that is not empty.

    Attributes:
        values: ``float64 (M, 8)``: share of the image that the cell covers, eccentricity of the
            ellipse with the same moments (0 to 1), share of its convex hull that it fills, mean
            red, green and blue (0 to 255), standard deviation of the Laplacian of its brightness
            (the focus measure of Pech-Pacheco et al. 2000; it depends on the resolution), and share
            of lit pixels that lie outside its largest part.
        empty: how many more images have no lit pixel.
    """

    values: npt.NDArray[np.float64]
    empty: int

    @classmethod
    def of(cls, rows: npt.NDArray[np.float64]) -> "Morphology":
        """From ``float64 (N, 8)`` of :func:`measure_each`, where an empty image has area 0."""
        there = rows[:, 0] > 0
        return cls(rows[there], int((~there).sum()))

    @property
    def empty_share(self) -> float:
        """Share of the images with no lit pixel, 0 to 1."""
        return self.empty / (self.empty + len(self.values))


def measure(images: Images) -> Morphology:
    """Measure each cell of ``uint8 (N, R, R, 3)``.

    Raises:
        ValueError: the images are not that.
    """
    check_images(images)
    rows = [_measure(image) for image in images]
    kept = [row for row in rows if row is not None]
    values = np.array(kept, dtype=np.float64).reshape(len(kept), len(MEASURES))
    return Morphology(values, len(rows) - len(kept))


def measure_each(images: Images) -> npt.NDArray[np.float64]:
    """The same with a row for every image, ``float64 (N, 8)``: zeros where no pixel is lit.

    Raises:
        ValueError: the images are not ``uint8 (N, R, R, 3)``.
    """
    check_images(images)
    values = np.zeros((len(images), len(MEASURES)))
    there = lit(images).any(axis=(1, 2))
    if there.any():
        values[there] = measure(images[there]).values
    return values


class MorphologyExtractor:
    """The measures as features, where no network is at hand: an extractor.

    Each counts in standard deviations of the cells it was built with, but no smaller ones than can
    be seen: 0.01 of a share, one gray level.

    Args:
        cells: ``uint8 (M, R, R, 3)`` real cells, of the training part.
    """

    name = "cell measures"
    inception = False

    def __init__(self, cells: Images) -> None:
        self._cells, self._own = cells, measure_each(cells)
        self._mean = self._own.mean(axis=0)
        self._spread = np.maximum(self._own.std(axis=0), _LEAST)

    def __call__(self, images: Images) -> Features:
        return self.of(self.measured(images))

    def measured(self, images: Images) -> npt.NDArray[np.float64]:
        """As :func:`measure_each`, which those it was built with have been through already."""
        return self._own if images is self._cells else measure_each(images)

    def of(self, measures: npt.NDArray[np.float64]) -> Features:
        """Features of cells measured already, ``float64 (N, 8)``."""
        scaled = (measures - self._mean) / self._spread
        return Features(self.name, False, scaled.astype(np.float32))


def lit(images: Images) -> Mask:
    """Pixels that belong to a cell, ``bool (N, R, R)``: their brightest channel is above black."""
    return np.asarray(images.max(axis=-1) > LIT)


def _measure(image: Images) -> list[float] | None:
    mask = lit(image)
    if not mask.any():
        return None
    cell = max(regionprops(label(mask)), key=lambda part: part.area)
    inside = np.zeros_like(mask)
    inside[tuple(cell.coords.T)] = True
    return [
        float(cell.area / mask.size),
        float(cell.eccentricity),
        # A hull of one pixel's width has no area.
        float(cell.solidity) if cell.area_convex else 1.0,
        *image[inside].mean(axis=0).tolist(),
        _texture(image, inside),
        float(1 - cell.area / mask.sum()),
    ]


def _texture(image: Images, inside: Mask) -> float:
    core = ndimage.binary_erosion(inside, iterations=_RIM)
    if not core.any():
        return 0.0
    gray = image.mean(axis=-1)
    return float(ndimage.laplace(gray)[core].std())


def morphology_distance(made: Morphology, real: Morphology) -> dict[str, float | None]:
    """How far two sets lie apart in each measure, in standard deviations of the real one.

    Returns:
        For each of :data:`MEASURES` the Wasserstein-1 distance of the two sets over the standard
        deviation of the real set (0 is best), and their ``mean``; None where a set holds nothing
        but empty images.
    """
    if not len(made.values) or not len(real.values):
        return dict.fromkeys((*MEASURES, "mean"))
    found = [
        float(wasserstein_distance(a, b) / (b.std() or 1.0))
        for a, b in zip(made.values.T, real.values.T, strict=True)
    ]
    return {**dict(zip(MEASURES, found, strict=True)), "mean": float(np.mean(found))}
