"""Search of images of the same cell, and of subject numbers that belong to one patient.

C-NMC has patients with several subject numbers: the same cells, copied, segmented again or
photographed again, occur under two numbers. Two images are linked if all pixels are equal, or if
the texture inside the cell is the same after a rotation or reflection. The latter is not searched
for images whose background is not black.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import fft
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from leuk.data.decode import LIT, THUMB
from leuk.data.pixels import PixelStore
from leuk.data.scale import has_background
from leuk.store import make_once

log = logging.getLogger(__name__)

FORMAT = 2
"""Version in the cache key of the links; increase it when the search changes."""

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Thumbs = npt.NDArray[np.uint8]

SAME_TEXTURE = 0.7
"""Minimum correlation of texture of two images of one cell. Among 2,700 pairs of similar shape in
folds 0 and 1 of C-NMC, pairs of different patients reach 0.67."""

_NEIGHBORS = 5
_RADIUS = 0.2
_SAME_SHAPE = 0.9
_FREQUENCIES = 6
_SHIFT = 3
_CHUNK = 512


def link_images(table: pd.DataFrame, store: PixelStore) -> pd.DataFrame:
    """Add columns that follow from images of the same cell to the table of a store's images.

    These are ``patient`` (linked subjects), ``original`` (row of the first identical image) and
    ``conflict`` (True if an identical image has the other label).
    """
    pairs = find_pairs(store)
    original = np.arange(len(table))
    copies = pairs[pairs["kind"] == "identical"]
    original[copies["second"]] = copies["first"]
    labels = table["label"].to_numpy()
    wrong = np.isin(original, original[labels != labels[original]])
    patients = merge_subjects(table["subject"], pairs)
    return table.assign(patient=patients, original=original, conflict=wrong)


def find_pairs(store: PixelStore) -> pd.DataFrame:
    """Find pairs of images of the same cell; the result is cached.

    Returns:
        Table with ``first`` < ``second`` (rows of the store), ``kind`` (``identical`` or ``near``)
        and ``score`` (correlation of texture, 1 for identical images).
    """

    def build(target: Path) -> None:
        _search(store).to_csv(target / "pairs.csv", index=False)

    key = {"format": FORMAT, "store": store.folder.name}
    folder = make_once(store.folder.parents[1], "links", key, build)
    return pd.read_csv(folder / "pairs.csv", dtype={"kind": str})


def merge_subjects(subjects: "pd.Series[str]", pairs: pd.DataFrame) -> "pd.Series[str]":
    """Return the patient of each image: all linked subjects joined, such as ``ALL-20+ALL-21``.

    Args:
        subjects: subject of each image, by row.
        pairs: table with the rows ``first`` and ``second`` of linked images.
    """
    names, codes = np.unique(subjects.to_numpy(str), return_inverse=True)  # names are sorted
    first, second = codes[pairs["first"]], codes[pairs["second"]]
    edges = coo_array((np.ones(len(first)), (first, second)), shape=(len(names), len(names)))
    component = np.asarray(connected_components(edges, directed=False)[1])
    joined = pd.Series(names, dtype=str).groupby(component).agg("+".join)
    return pd.Series(joined.to_numpy()[component[codes]], index=subjects.index, name="patient")


def _search(store: PixelStore) -> pd.DataFrame:
    _, first, inverse = np.unique(store.digests, axis=0, return_index=True, return_inverse=True)
    original = first[inverse.ravel()]
    copies = np.flatnonzero(original != np.arange(len(original)))
    pairs = [(original[copy], copy, "identical", 1.0) for copy in copies]
    # Other backgrounds than black make all images of a scanner similar.
    rows = np.sort(first)
    rows = rows[~has_background(store.thumbs[rows])]
    for candidates in _candidates(store.thumbs, rows):
        alike = candidates[_best_over_turns(_shape, store.thumbs, candidates) >= _SAME_SHAPE]
        scores = _best_over_turns(_texture, store.thumbs, alike)
        pairs += [
            (*pair, "near", round(float(score), 4))
            for pair, score in zip(alike, scores, strict=True)
            if score >= SAME_TEXTURE
        ]
    near = len(pairs) - len(copies)
    log.info("%d identical and %d nearly identical pairs of images", len(copies), near)
    found = pd.DataFrame(pairs, columns=["first", "second", "kind", "score"])
    return found.sort_values(["first", "second"], ignore_index=True)


def _candidates(thumbs: Thumbs, rows: Rows) -> Iterator[Rows]:
    """Yield pairs ``(P, 2)`` with similar perceptual hashes, in chunks."""
    if len(rows) < 2:
        return
    chunks = np.array_split(rows, -(-len(rows) // _CHUNK))
    hashes = np.concatenate([perceptual_hash(thumbs[chunk]) for chunk in chunks])
    tree = cKDTree(hashes)
    near = tree.query(hashes, k=_NEIGHBORS + 1, distance_upper_bound=_RADIUS, workers=-1)
    distance, position = map(np.asarray, near)
    row, neighbor = np.nonzero(np.isfinite(distance))
    pairs = np.sort(np.stack([rows[row], rows[position[row, neighbor]]], axis=1), axis=1)
    pairs = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)
    for start in range(0, len(pairs), _CHUNK):
        yield pairs[start : start + _CHUNK]


def perceptual_hash(thumbs: Thumbs) -> Floats:
    """Hash images ``uint8 (N, H, H)``, invariant to rotations and reflections.

    Low frequencies of the discrete cosine transform. Reflection changes signs and transposition
    swaps the axes, so magnitudes are used and each pair of transposed frequencies is sorted (after
    Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", section 3.1).

    Returns:
        ``float32 (N, 35)``, to compare by Euclidean distance.
    """
    images = thumbs.astype(np.float32)
    images -= images.mean(axis=(1, 2), keepdims=True)
    images /= np.maximum(images.std(axis=(1, 2), keepdims=True), 1e-6) * thumbs.shape[1]
    low = np.abs(fft.dctn(images, axes=(1, 2), norm="ortho"))[:, :_FREQUENCIES, :_FREQUENCIES]
    u, v = np.triu_indices(_FREQUENCIES)
    upper, lower = low[:, u, v], low[:, v, u]
    off_diagonal = u != v
    columns = [np.maximum(upper, lower)[:, 1:], np.minimum(upper, lower)[:, off_diagonal]]
    return np.concatenate(columns, axis=1, dtype=np.float32)


def _shape(thumbs: Thumbs) -> Floats:
    """Reduce thumbnails to half size, zero mean and unit length."""
    half = thumbs.reshape(len(thumbs), THUMB // 2, 2, THUMB // 2, 2).mean(axis=(2, 4))
    return _unit(half - half.mean(axis=(1, 2), keepdims=True))


def _texture(thumbs: Thumbs) -> Floats:
    """Extract detail finer than shading from the interior of the cell, with unit length."""
    images = thumbs.astype(np.float32)
    inside = (images > 2 * LIT).astype(np.float32)
    near = (0, THUMB / 21, THUMB / 21)
    weight = np.maximum(gaussian_filter(inside, near), 1e-3)
    shading = gaussian_filter(images * inside, near) / weight
    core = binary_erosion(inside, np.ones((1, 9, 9), bool))
    return _unit(gaussian_filter((images - shading) * core, (0, 0.7, 0.7)))


def _unit(images: npt.NDArray[np.float64] | Floats) -> Floats:
    length = np.sqrt((images**2).sum(axis=(1, 2), keepdims=True))
    return np.asarray(images / np.maximum(length, 1e-6), np.float32)


def turn_to_match(first: Thumbs, second: Thumbs, picture: Thumbs) -> Thumbs:
    """Rotate and reflect a picture ``uint8 (R, R, 3)`` of a cell to match another one best.

    ``first`` and ``second`` are the thumbnails ``uint8 (64, 64)`` of the other picture and of this.
    """
    correlations = _over_turns(_texture(first[None]), _texture(second[None]))
    turn = int(np.argmax(np.concatenate(correlations)))
    return np.asarray(list(_turns(picture[None]))[turn][0])


def _best_over_turns(prepare: Callable[[Thumbs], Floats], thumbs: Thumbs, pairs: Rows) -> Floats:
    """Return the maximum correlation of each pair over the 8 orientations and small shifts."""
    if not len(pairs):
        return np.empty(0, np.float32)
    first, second = prepare(thumbs[pairs[:, 0]]), prepare(thumbs[pairs[:, 1]])
    return np.asarray(np.max(_over_turns(first, second), axis=0))


def _over_turns(first: Floats, second: Floats) -> list[Floats]:
    """Return the maximum correlation ``(N,)`` over small shifts, per orientation of ``second``."""
    side = first.shape[1]
    spectrum = fft.rfft2(first, workers=-1)
    near = np.r_[0 : _SHIFT + 1, -_SHIFT:0]
    correlations = []
    for turned in _turns(second):
        product = spectrum * np.conj(fft.rfft2(turned, workers=-1))
        shifted = fft.irfft2(product, s=(side, side), workers=-1)[:, near][:, :, near]
        correlations.append(shifted.max(axis=(1, 2)))
    return correlations


def _turns(images: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield the 8 rotations and reflections of images ``(N, H, H, ...)``."""
    for quarter in range(4):
        turned = np.rot90(images, quarter, axes=(1, 2))
        yield turned
        yield turned[:, :, ::-1]
