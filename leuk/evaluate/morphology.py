"""Area, shape, color and texture of cells, and distances between two sets of images in these.

These measures need no network and follow what a hematologist looks at, so they may show differences
that features trained on photographs miss. The mask is the non-black part of a segmented cell image.
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
"""Names of the measures, in the order of :attr:`Morphology.values`."""

_LEAST = np.array([0.01, 0.01, 0.01, 1.0, 1.0, 1.0, 1.0, 0.01])
"""Lower bounds of the standard deviations: specks hardly vary between real cells, and a single
stray pixel must not outweigh all other measures."""

_RIM = 2
"""Width in pixels of the rim excluded from the texture, which would measure the edge occupied."""


@dataclass(frozen=True, eq=False)
class Morphology:
    """Measures of cells, a row per image that is not empty.

    Attributes:
        values: ``float64 (M, 8)``: share of the image that the cell covers, eccentricity of the
            ellipse with the same moments (0 to 1), share of its convex hull that it fills, mean
            red, green and blue (0 to 255), standard deviation of the Laplacian of its brightness
            (the focus measure of Pech-Pacheco et al. 2000; it depends on the resolution), and share
            of lit pixels outside its largest part.
        empty: number of images without a lit pixel, which have no row.
    """

    values: npt.NDArray[np.float64]
    empty: int

    @classmethod
    def of(cls, rows: npt.NDArray[np.float64]) -> "Morphology":
        """Build from rows ``float64 (N, 8)`` of :func:`measure_each`; empty images have area 0."""
        occupied = rows[:, 0] > 0
        return cls(rows[occupied], int((~occupied).sum()))

    @property
    def empty_share(self) -> float:
        """Share of images without a lit pixel, in [0, 1]."""
        return self.empty / (self.empty + len(self.values))


def measure(images: Images) -> Morphology:
    """Measure each cell of ``uint8 (N, R, R, 3)``.

    Raises:
        ValueError: the images are not ``uint8 (N, R, R, 3)``.
    """
    check_images(images)
    rows = [_measure(image) for image in images]
    kept = [row for row in rows if row is not None]
    values = np.array(kept, dtype=np.float64).reshape(len(kept), len(MEASURES))
    return Morphology(values, len(rows) - len(kept))


def measure_each(images: Images) -> npt.NDArray[np.float64]:
    """Measure each image, ``float64 (N, 8)``, with zeros for images without a lit pixel.

    Raises:
        ValueError: the images are not ``uint8 (N, R, R, 3)``.
    """
    check_images(images)
    values = np.zeros((len(images), len(MEASURES)))
    occupied = lit(images).any(axis=(1, 2))
    if occupied.any():
        values[occupied] = measure(images[occupied]).values
    return values


class MorphologyExtractor:
    """Extractor that uses cell measures as features and needs no network.

    Measures are standardized by the mean and standard deviation of the given images, the latter at
    least the smallest visible difference: 0.01 for shares, one gray level for colors.

    Args:
        images: real training images ``uint8 (M, R, R, 3)``.
    """

    name = "cell measures"
    inception = False

    def __init__(self, images: Images) -> None:
        self._images, self._own = images, measure_each(images)
        self._mean = self._own.mean(axis=0)
        self._spread = np.maximum(self._own.std(axis=0), _LEAST)

    def __call__(self, images: Images) -> Features:
        return self.of(self.measured(images))

    def measured(self, images: Images) -> npt.NDArray[np.float64]:
        """Return :func:`measure_each`, reused for the images that the extractor was built with."""
        return self._own if images is self._images else measure_each(images)

    def of(self, measures: npt.NDArray[np.float64]) -> Features:
        """Features from measures ``float64 (N, 8)``."""
        scaled = (measures - self._mean) / self._spread
        return Features(self.name, False, scaled.astype(np.float32))


def lit(images: Images) -> Mask:
    """Mask of the cells, ``bool (N, R, R)``: pixels whose brightest channel is above black."""
    return np.asarray(images.max(axis=-1) > LIT)


def _measure(image: Images) -> list[float] | None:
    mask = lit(image)
    if not mask.any():
        return None
    cell = max(regionprops(label(mask)), key=lambda region: region.area)
    inside = np.zeros_like(mask)
    inside[tuple(cell.coords.T)] = True
    return [
        float(cell.area / mask.size),
        float(cell.eccentricity),
        # A hull of a single pixel's width has no area.
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


def morphology_distance(synthetic: Morphology, real: Morphology) -> dict[str, float | None]:
    """Distance of two sets in each measure, in standard deviations of the real set.

    Returns:
        For each of :data:`MEASURES` the Wasserstein-1 distance of the two sets over the standard
        deviation of the real set (0 is best), and their ``mean``; None if all images of a set are
        empty.
    """
    if not len(synthetic.values) or not len(real.values):
        return dict.fromkeys((*MEASURES, "mean"))
    found = [
        float(wasserstein_distance(a, b) / (b.std() or 1.0))
        for a, b in zip(synthetic.values.T, real.values.T, strict=True)
    ]
    return {**dict(zip(MEASURES, found, strict=True)), "mean": float(np.mean(found))}
