"""Whether made cells are copies of the cells that the GAN was trained on.

A set of copies has the best FID of all. What tells it from a good set is that its cells lie closer
to the training cells than new real cells do.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from leuk.data.effective import patient_quantile
from leuk.evaluate.distances import Metrics, patient_numbers
from leuk.evaluate.features import Features
from leuk.evaluate.vectors import Images, check_images

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_SIDE = 32
"""Pixels a side at which cells are compared; what is a copy there looks like one."""

_CLOSEST = 0.01
"""Share of held-out cells below whose distance a cell counts as closer than they are."""

_CHUNK = 512
_STEP = 15
"""Degrees between the directions that cells are compared in."""

_COPY = 1.25
"""Gray levels (root mean square at 32 pixels per side) up to which an image is a copy.

Measured on C-NMC at 224 pixels: one gray level added to every pixel gives 1.0, JPEG at quality 75
at most 0.9, noise of three gray levels 1.0. None of 600 images of one fold is a copy of 600 of the
other; the nearest pairs of two subjects, at 0.8 to 1.5, are of H14 and H24, who are linked.
"""

_DARK = 16
"""Gray level up to which a pixel counts as background where images are aligned."""


@dataclass(frozen=True, eq=False)
class Neighbors:
    """For each cell its nearest training cell.

    Attributes:
        rows: ``(N,)`` of the training set.
        distances: ``float64 (N,)``.
    """

    rows: Rows
    distances: Floats


def nearest_in_features(cells: Features, train: Features, itself: bool = True) -> Neighbors:
    """Nearest training cells by Euclidean distance between features.

    Args:
        cells: features of the cells that are looked up.
        train: features of the training cells.
        itself: whether a cell may be its own neighbor; False when ``cells`` are ``train``.
    """
    x, y = (torch.from_numpy(features.pooled).double() for features in (cells, train))
    return _nearest(x, [y], itself)


def nearest_in_pixels(cells: Images, train: Images, itself: bool = True) -> Neighbors:
    """Nearest training cells, each in 24 turns by 15 degrees and their mirror images.

    GANs train on flipped and turned cells, so a copy may be turned. Measured on real cells with
    Lite0: features of a turned copy lie no closer to its original than those of another cell, so
    that turned copies are found in pixels only, and only by looking in all directions.

    Args:
        cells: ``uint8 (N, R, R, 3)``.
        train: ``uint8 (M, R, R, 3)``.
        itself: whether a cell may be its own neighbor; False when ``cells`` are ``train``.

    Returns:
        Distances in gray levels: the root of the mean squared difference at 32 pixels a side.

    Raises:
        ValueError: the images are not that.
    """
    ours = _shrunk(cells).flatten(1)
    found = _nearest(ours, (turned.flatten(1) for turned in _turned(_shrunk(train))), itself)
    return Neighbors(found.rows, found.distances / ours.shape[1] ** 0.5)


def copied(made: Images, train: Images) -> npt.NDArray[np.bool_]:
    """Find the images that are exact or near-exact copies of training images.

    A copy may be mirrored or turned by quarters, or else moved within the frame, and changed by
    about one gray level per pixel.

    Args:
        made: synthetic images ``uint8 (N, R, R, 3)``.
        train: all images that the GAN was trained on, ``uint8 (M, R, R, 3)``.

    Returns:
        ``bool (N,)``.

    Raises:
        ValueError: the images are not that.
    """
    shrunk = _shrunk(train)
    turned = (
        torch.rot90(mirrored, quarters, (2, 3)).flatten(1)
        for mirrored in (shrunk, shrunk.flip(3))
        for quarters in range(4)
    )
    in_place = _nearest(_shrunk(made).flatten(1), turned, itself=True)
    moved = _nearest(
        _shrunk(made, aligned=True).flatten(1), [_shrunk(train, aligned=True).flatten(1)], True
    )
    limit = _COPY * shrunk[0].numel() ** 0.5
    found: npt.NDArray[np.bool_] = np.minimum(in_place.distances, moved.distances) <= limit
    return found


def _aligned(images: Images) -> Images:
    """Images with the lit pixels moved into the upper left corner."""
    lit = images.max(axis=3) > _DARK
    downs, rights = (np.argmax(np.any(lit, axis=axis), axis=1) for axis in (2, 1))
    moved = np.empty_like(images)
    for target, image, down, right in zip(moved, images, downs, rights, strict=True):
        target[:] = np.roll(image, (-down, -right), axis=(0, 1))
    return moved


def compare(
    made: Neighbors,
    held_out: Neighbors,
    train: Neighbors,
    patients: npt.NDArray[np.generic] | None = None,
) -> Metrics:
    """The distances of made cells to training cells beside those of real cells.

    Cells of one subject resemble each other, so that new real cells of the training subjects lie
    closer to the training cells than held-out ones of other subjects do (measured: 11 to 14 % of
    them below the limit that 1 % of the held-out ones pass). A good GAN makes such cells; only one
    that passes the training cells' own figure copies.

    Args:
        made: nearest training cells of made cells.
        held_out: those of real cells of other subjects.
        train: those of training cells, other than themselves.
        patients: ``(N,)`` the patient of each held-out cell, each of whom weighs the same; None
            where the cells are independent.

    Returns:
        ``median_ratio``: median distance of made over that of held-out cells (about 1 for new
        cells, near 0 for copies; None where held-out cells are in the training set themselves).
        ``closer_share``: share of made cells closer to a training cell than 99 % of the held-out
        ones are. ``train_median_ratio`` and
        ``train_closer_share``: the same of training cells.
    """
    whose = patient_numbers(patients, len(held_out.distances))
    usual, limit = (patient_quantile(held_out.distances, whose, share) for share in (0.5, _CLOSEST))
    figures: Metrics = {}
    for prefix, cells in (("", made), ("train_", train)):
        ratio = float(np.median(cells.distances)) / usual if usual else None
        figures[f"{prefix}median_ratio"] = ratio
        figures[f"{prefix}closer_share"] = float((cells.distances < limit).mean())
    return figures


def closest_pairs(made: Neighbors, count: int) -> list[tuple[int, int, float]]:
    """The ``count`` made cells closest to a training cell, to be looked at.

    Returns:
        Row of the made cell, row of the training cell, and their distance; closest first.
    """
    order = np.argsort(made.distances, kind="stable")[:count]
    return [(int(i), int(made.rows[i]), float(made.distances[i])) for i in order]


def _shrunk(images: Images, aligned: bool = False) -> Tensor:
    """``float32 (N, 3, side, side)`` at no more than 32 pixels per side."""
    check_images(images)
    side = min(_SIDE, images.shape[1])
    shrunk = []
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        pixels = torch.from_numpy(_aligned(chunk) if aligned else chunk.copy()).permute(0, 3, 1, 2)
        shrunk.append(F.interpolate(pixels.float(), (side, side), mode="area"))
    return torch.cat(shrunk)


def _turned(images: Tensor) -> Iterator[Tensor]:
    """The images in all directions, and their mirror images."""
    for mirrored in (images, images.flip(3)):
        for angle in range(0, 360, _STEP):
            yield rotate(mirrored, angle, InterpolationMode.BILINEAR)


def _nearest(cells: Tensor, versions: Iterable[Tensor], itself: bool) -> Neighbors:
    """Nearest of ``versions`` ``(M, D)``, which number the same cells, for each ``(N, D)``."""
    best = torch.full((len(cells),), torch.inf, dtype=cells.dtype)
    rows = torch.zeros(len(cells), dtype=torch.int64)
    for version in versions:
        for start in range(0, len(cells), _CHUNK):
            part = slice(start, start + _CHUNK)
            apart = torch.cdist(cells[part], version)
            if not itself:
                apart[:, part].fill_diagonal_(torch.inf)
            found = apart.min(dim=1)
            closer = found.values < best[part]
            best[part] = torch.where(closer, found.values, best[part])
            rows[part] = torch.where(closer, found.indices, rows[part])
    return Neighbors(rows.numpy(), best.double().numpy())
