"""Detection of images unlike the training images, and of images without a cell.

The score of such an image means nothing: a network is confident about noise, too. Two checks: the
distance of its features from those of training images, and the presence of a cell on black.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.neighbors import NearestNeighbors

from leuk.data.decode import cell_mask
from leuk.data.splits import patient_quantile
from leuk.metrics.arrays import Floats, Images

NEIGHBORS = 10
"""Rank of the nearest training image that defines the distance; about 0.1 %, as in the paper."""

QUANTILE = 0.99
"""Share of held-out images that count as familiar, with equal weight for every patient."""

MOST_LIT = 0.8
"""Largest lit share of an image of a cell on black: a disc that fills a square covers 0.785."""

SMALLEST = 0.5
"""Smallest area of a cell, as a share of the smallest training cell."""

_EIGHT = np.ones((3, 3), dtype=bool)
"""Connectivity: pixels that touch at a corner are connected."""

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Familiar:
    """Nearest-neighbor novelty detector on a network's features (Sun et al. 2022, section 3).

    The distance of an image is that to its ``NEIGHBORS``-th nearest training image, with all
    features scaled to length 1; it assumes nothing about the distribution of the features.
    """

    features: Rows  # (N, D) of training images, each of length 1
    limit: float  # distance above which an image is unfamiliar, in [0, 2]

    @classmethod
    def fitted(
        cls,
        train: Rows,
        held_out: Rows,
        patients: npt.NDArray[np.generic],
        quantile: float = QUANTILE,
    ) -> "Familiar":
        """Fit the detector, and set its limit on held-out images of other patients.

        The limit is the quantile of the distances of held-out images ``(M, D)``, with equal weight
        for every patient.
        """
        unlimited = cls(_of_length_one(train), np.inf)
        limit = patient_quantile(unlimited.distances(held_out), patients, quantile)
        return cls(unlimited.features, limit)

    def distances(self, features: Rows) -> Floats:
        """Distances ``(M,)`` of features ``(M, D)``, in [0, 2]."""
        count = min(NEIGHBORS, len(self.features))
        found = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(self.features)
        distances, _ = found.kneighbors(_of_length_one(features))
        return np.asarray(distances[:, -1], np.float64)


def _of_length_one(features: Rows) -> Rows:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12), np.float32)


def largest_parts(images: Images) -> Floats:
    """Share ``(N,)`` of each image ``uint8 (N, R, R, 3)`` that its largest lit region covers."""
    shares = np.zeros(len(images))
    for row, mask in enumerate(cell_mask(images)):
        regions, count = ndimage.label(mask, structure=_EIGHT)
        if count:
            shares[row] = np.bincount(regions.ravel())[1:].max() / mask.size
    return shares


def no_cell(area: float, largest: float, smallest: float | None) -> str:
    """Explain why an image shows no segmented cell on black; empty if it does.

    ``area`` is the lit share of the whole image, ``largest`` the share of the frame that the
    largest lit region covers, and ``smallest`` the smallest of these shares of training images.
    """
    if area > MOST_LIT:
        return f"no black background: {area:.0%} of the image is lit"
    if smallest is not None and largest < SMALLEST * smallest:
        return (
            f"nothing as large as a cell: its largest region covers {largest:.2%}, the smallest "
            f"training cell {smallest:.2%}"
        )
    return ""
