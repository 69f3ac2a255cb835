"""Whether an image is like the cells a model was fitted on, and whether it shows a cell at all.

A score says nothing of an image that is neither: a network is sure of noise, too. Two looks at it:
how far its features lie from those of training cells, and whether there is one cell on black.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.neighbors import NearestNeighbors

from leuk.data.effective import patient_quantile
from leuk.evaluate.morphology import lit
from leuk.evaluate.vectors import Floats, Images

NEIGHBORS = 10
"""Which nearest training cell the distance is to; about one in a thousand, as in the paper."""

QUANTILE = 0.99
"""Share of held-out images that count as familiar, every patient weighing the same."""

MOST_LIT = 0.8
"""Share of an image above which it is no cell on black: a disc that fills a square covers 0.785."""

SMALLEST = 0.5
"""Share of the smallest training cell below which what is lit is no cell."""

_EIGHT = np.ones((3, 3), dtype=bool)
"""Pixels that touch by a corner belong together."""

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Familiar:
    """What training cells look like to a network (Sun et al. 2022, section 3).

    The distance of a cell is that to its ``NEIGHBORS``-th nearest training cell, all features
    brought to length 1; it needs no assumption on how the features are distributed.

    Attributes:
        features: ``float32 (N, D)`` of training cells, each of length 1.
        limit: distance above which a cell is unfamiliar.
    """

    features: Rows
    limit: float

    @classmethod
    def fitted(
        cls,
        train: Rows,
        held_out: Rows,
        patients: npt.NDArray[np.generic],
        quantile: float = QUANTILE,
    ) -> "Familiar":
        """Take the limit from cells that are known to be of the kind.

        Args:
            train: ``(N, D)`` features of training cells.
            held_out: ``(M, D)`` of cells of other persons, such as the validation part.
            patients: ``(M,)`` the patient of each of these.
            quantile: share of these that is to count as familiar, where every patient weighs the
                same.

        Raises:
            ValueError: no cells, other numbers of features, or not one patient for each cell.
        """
        if not len(train) or not len(held_out) or train.shape[1:] != held_out.shape[1:]:
            raise ValueError(f"features of {train.shape} and {held_out.shape}: both need rows (D,)")
        if len(patients) != len(held_out):
            raise ValueError(f"patients: {len(patients)} of {len(held_out)} cells; one each")
        unlimited = cls(_of_length_one(train), np.inf)
        limit = patient_quantile(unlimited.distances(held_out), patients, quantile)
        return cls(unlimited.features, limit)

    def distances(self, features: Rows) -> Floats:
        """Distance of each cell, in [0, 2], of features ``(M, D)``."""
        count = min(NEIGHBORS, len(self.features))
        found = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(self.features)
        distances, _ = found.kneighbors(_of_length_one(features))
        return np.asarray(distances[:, -1], np.float64)


def _of_length_one(features: Rows) -> Rows:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12), np.float32)


def largest_parts(images: Images) -> Floats:
    """Share of each image of ``uint8 (N, R, R, 3)`` that its largest lit part covers, ``(N,)``."""
    return np.array([_largest(mask) for mask in lit(images)], np.float64)


def _largest(mask: npt.NDArray[np.bool_]) -> float:
    parts, count = ndimage.label(mask, structure=_EIGHT)
    return float(np.bincount(parts.ravel())[1:].max() / mask.size) if count else 0.0


def no_cell(area: float, largest: float, smallest: float | None) -> str:
    """Why an image shows no segmented cell on black; empty where it does.

    Args:
        area: share of the whole image that is lit.
        largest: share of the frame that the largest lit part covers.
        smallest: the least of that among training cells; None where it is not known.
    """
    if area > MOST_LIT:
        return f"no black background: {area:.0%} of the image is lit"
    if smallest is not None and largest < SMALLEST * smallest:
        return (
            f"nothing as large as a cell: its largest part covers {largest:.2%}, the smallest "
            f"training cell {smallest:.2%}"
        )
    return ""
