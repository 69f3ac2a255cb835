"""Detection of images unlike the training images, and of images without a cell.

The score of such an image means nothing: a network is confident about noise, too. Two checks: the
distance of its features from those of training images, and the presence of a cell on black.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from leuk.data.splits import patient_quantile
from leuk.metrics.arrays import Floats, Images, check_images
from leuk.metrics.baselines import lit

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

    Attributes:
        features: ``float32 (N, D)`` features of training images, each of length 1.
        limit: distance above which an image is unfamiliar, in [0, 2].
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
        """Fit the detector and set its limit on held-out images.

        Args:
            train: ``(N, D)`` features of training images.
            held_out: ``(M, D)`` features of images of other patients, such as validation images.
            patients: ``(M,)`` the patient of each held-out image.
            quantile: share of held-out images that should count as familiar, with equal weight for
                every patient.

        Raises:
            ValueError: no images, different numbers of features, or different numbers of patients
                and held-out images.
        """
        if not len(train) or not len(held_out) or train.shape[1:] != held_out.shape[1:]:
            raise ValueError(f"features of {train.shape} and {held_out.shape}: both need rows (D,)")
        if len(patients) != len(held_out):
            raise ValueError(
                f"{len(patients)} patients for {len(held_out)} images; give one per image"
            )
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
    return np.array([_largest(mask) for mask in lit(images)], np.float64)


def _largest(mask: npt.NDArray[np.bool_]) -> float:
    regions, count = ndimage.label(mask, structure=_EIGHT)
    return float(np.bincount(regions.ravel())[1:].max() / mask.size) if count else 0.0


def no_cell(area: float, largest: float, smallest: float | None) -> str:
    """Explain why an image shows no segmented cell on black; empty if it does.

    Args:
        area: share of the whole image that is lit.
        largest: share of the frame that the largest lit region covers.
        smallest: smallest ``largest`` of the training images; None if unknown.
    """
    if area > MOST_LIT:
        return f"no black background: {area:.0%} of the image is lit"
    if smallest is not None and largest < SMALLEST * smallest:
        return (
            f"nothing as large as a cell: its largest region covers {largest:.2%}, the smallest "
            f"training cell {smallest:.2%}"
        )
    return ""


# --- Structural similarity of synthetic to real images, and within a set

Indices = npt.NDArray[np.int64]

_BATCH = 64
_PAIRS = 200
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the scales, finest first (Wang et al. 2003)."""

_WINDOW = 11
_SMALLEST = 16


def nearest_similarity(
    synthetic: Images, real: Images, nearest: Indices
) -> dict[str, float | None]:
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
