"""Detection of synthetic images that copy training images.

A set of copies has an excellent FID. It differs from a good set in being closer to the training
images than new real images are.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from leuk.data.splits import patient_quantile
from leuk.metrics.arrays import Flags, Floats, Images, Integers, check_images
from leuk.metrics.synthetic.distances import Metrics, Patients, patient_numbers
from leuk.metrics.synthetic.features import Features

_SIDE = 32
"""Pixels per side at which images are compared, enough to recognize a copy."""

_CLOSEST = 0.01
"""Share of held-out images whose distances define the limit of ``closer_share``."""

_CHUNK = 512
_STEP = 15
"""Degrees between the rotations in which images are compared."""

_COPY = 1.25
"""Gray levels (root mean square at 32 pixels per side) up to which an image is a copy.

Measured on C-NMC at 224 pixels: one gray level added to every pixel gives 1.0, JPEG at quality 75
at most 0.9, noise of three gray levels 1.0. None of 600 images of one fold is a copy of 600 of the
other; the nearest pairs of two subjects, at 0.8 to 1.5, are of H14 and H24, who are linked.
"""

_DARK = 16
"""Gray level up to which a pixel counts as background where images are aligned."""


class Neighbors(NamedTuple):
    """Nearest training image of each image."""

    rows: Integers  # (N,)
    distances: Floats  # (N,)


def nearest_in_features(images: Features, train: Features, itself: bool = True) -> Neighbors:
    """Find the nearest training images by Euclidean distance between features.

    ``itself`` is False if ``images`` are ``train``, where no image may be its own neighbor.
    """
    x, y = (torch.from_numpy(features.pooled).double() for features in (images, train))
    return _nearest(x, [y], itself)


def nearest_in_pixels(images: Images, train: Images, itself: bool = True) -> Neighbors:
    """Find the nearest training images over 24 rotations by 15 degrees, plain and mirrored.

    GANs train on flipped and rotated images, so a copy may be rotated. In Lite0's features a
    rotated copy of a real image is no closer to its original than another image, so rotated copies
    are found in pixels only, by comparing all rotations. Distances are in gray levels: the root
    mean squared difference at 32 pixels per side. ``itself`` is as for
    :func:`nearest_in_features`.
    """
    ours = _shrunk(images).flatten(1)
    shrunk = _shrunk(train)
    turned = (
        rotate(mirrored, angle, InterpolationMode.BILINEAR).flatten(1)
        for mirrored in (shrunk, shrunk.flip(3))
        for angle in range(0, 360, _STEP)
    )
    found = _nearest(ours, turned, itself)
    return Neighbors(found.rows, found.distances / ours.shape[1] ** 0.5)


def copied(synthetic: Images, train: Images) -> Flags:
    """Find the images that are exact or near-exact copies of any training image of the GAN.

    A copy may be mirrored or rotated by multiples of 90 degrees, or else shifted within the frame,
    and may differ by about one gray level per pixel.
    """
    shrunk = _shrunk(train)
    turned = (
        torch.rot90(mirrored, quarters, (2, 3)).flatten(1)
        for mirrored in (shrunk, shrunk.flip(3))
        for quarters in range(4)
    )
    in_place = _nearest(_shrunk(synthetic).flatten(1), turned)
    moved = _nearest(
        _shrunk(synthetic, aligned=True).flatten(1), [_shrunk(train, aligned=True).flatten(1)]
    )
    limit = _COPY * shrunk[0].numel() ** 0.5
    return np.asarray(np.minimum(in_place.distances, moved.distances) <= limit)


def compare(
    synthetic: Neighbors, held_out: Neighbors, train: Neighbors, patients: Patients | None = None
) -> Metrics:
    """Compare distances to training images of synthetic and of real images.

    Images of the same subject are alike, so new real images of the training subjects are closer to
    the training images than held-out images of other subjects (measured: 11 to 14 % of them below
    the limit that 1 % of the held-out images pass). A good GAN generates such images; a GAN copies
    only if its share exceeds that of the training images. The patients of held-out images, if
    known, weigh the same.

    Returns:
        ``median_ratio``: median distance of synthetic over that of held-out images (about 1 for new
        images, near 0 for copies; None if held-out images are in the training set themselves).
        ``closer_share``: share of synthetic images closer to a training image than 99 % of the
        held-out images. ``train_median_ratio`` and ``train_closer_share``: the same for training
        images.
    """
    codes = patient_numbers(patients, len(held_out.distances))
    usual, limit = (patient_quantile(held_out.distances, codes, share) for share in (0.5, _CLOSEST))
    metrics: Metrics = {}
    for prefix, found in (("", synthetic), ("train_", train)):
        ratio = float(np.median(found.distances)) / usual if usual else None
        metrics[f"{prefix}median_ratio"] = ratio
        metrics[f"{prefix}closer_share"] = float((found.distances < limit).mean())
    return metrics


def closest_pairs(synthetic: Neighbors, count: int) -> list[tuple[int, int, float]]:
    """List row, row of the training image and distance of the closest images, closest first."""
    order = np.argsort(synthetic.distances, kind="stable")[:count]
    return [(int(i), int(synthetic.rows[i]), float(synthetic.distances[i])) for i in order]


def _shrunk(images: Images, aligned: bool = False) -> Tensor:
    """Shrink to ``float32 (N, 3, side, side)`` of at most 32 pixels per side.

    ``aligned`` shifts the lit pixels of each image into the upper left corner first.
    """
    check_images(images)
    side = min(_SIDE, images.shape[1])
    shrunk = []
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK].copy()
        if aligned:
            lit = chunk.max(axis=3) > _DARK
            downs, rights = (np.argmax(np.any(lit, axis=axis), axis=1) for axis in (2, 1))
            for image, down, right in zip(chunk, downs, rights, strict=True):
                image[:] = np.roll(image, (-down, -right), axis=(0, 1))
        pixels = torch.from_numpy(chunk).permute(0, 3, 1, 2)
        shrunk.append(F.interpolate(pixels.float(), (side, side), mode="area"))
    return torch.cat(shrunk)


def _nearest(images: Tensor, versions: Iterable[Tensor], itself: bool = True) -> Neighbors:
    """Find the nearest of ``versions`` ``(M, D)`` of the training images for each of ``(N, D)``."""
    best = torch.full((len(images),), torch.inf, dtype=images.dtype)
    rows = torch.zeros(len(images), dtype=torch.int64)
    for version in versions:
        for start in range(0, len(images), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            apart = torch.cdist(images[chunk], version)
            if not itself:
                apart[:, chunk].fill_diagonal_(torch.inf)
            found = apart.min(dim=1)
            closer = found.values < best[chunk]
            best[chunk] = torch.where(closer, found.values, best[chunk])
            rows[chunk] = torch.where(closer, found.indices, rows[chunk])
    return Neighbors(rows.numpy(), best.double().numpy())
