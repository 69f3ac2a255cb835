"""Which images show the same cell, and which subjects are therefore one person.

C-NMC's subject numbers do not keep people apart: the same cells, photographed again, cut out again
or copied, appear under two numbers. Two images are linked where all their pixels are equal, or
where, the one turned or mirrored, the texture inside the cell is the same. The second is not tried
for images whose background is not black.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import fft
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from leuk.data.background import has_background
from leuk.data.decode import LIT, THUMB
from leuk.data.pixels import PixelStore
from leuk.store.artifacts import make_once

log = logging.getLogger(__name__)

FORMAT = 2
"""Part of the key of found links: raise it when finding changes."""

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Thumbs = npt.NDArray[np.uint8]

SAME_TEXTURE = 0.7
"""Correlation of texture from which two images show one cell. Measured on folds 0 and 1 of C-NMC:
of 2,700 pairs alike in shape, those of different people reach 0.67."""

_NEIGHBORS = 5
_RADIUS = 0.2
_SAME_SHAPE = 0.9
_FREQUENCIES = 6
_SHIFT = 3
_CHUNK = 512


def link_images(cells: pd.DataFrame, store: PixelStore) -> pd.DataFrame:
    """Add what other images tell about each.

    Columns: ``group`` (linked subjects), ``original`` (row of the first identical image) and
    ``conflict`` (whether an identical image has the other label).
    """
    pairs = find_pairs(store)
    original = np.arange(len(cells))
    copies = pairs[pairs["kind"] == "identical"]
    original[copies["second"]] = copies["first"]
    labels = cells["label"].to_numpy()
    wrong = np.isin(original, original[labels != labels[original]])
    groups = group_subjects(cells["subject"], pairs)
    return cells.assign(patient=groups, original=original, conflict=wrong)


def find_pairs(store: PixelStore) -> pd.DataFrame:
    """Pairs of images that show the same cell; found once, then kept beside the store.

    Returns:
        ``first`` < ``second`` (rows of the store), ``kind`` (``identical`` or ``near``) and
        ``score`` (correlation of texture, 1 for identical images).
    """
    key = {"format": FORMAT, "store": store.folder.name}
    cache = store.folder.parents[1]
    folder = make_once(
        cache, "links", key, lambda to: _search(store).to_csv(to / "pairs.csv", index=False)
    )
    return pd.read_csv(folder / "pairs.csv", dtype={"kind": str})


def group_subjects(subjects: "pd.Series[str]", pairs: pd.DataFrame) -> "pd.Series[str]":
    """The group of every cell: its subject and all that are linked to it, as ``ALL-20+ALL-21``.

    Args:
        subjects: the subject of every cell, by row.
        pairs: rows ``first`` and ``second`` of linked cells.
    """
    names, codes = np.unique(subjects.to_numpy(str), return_inverse=True)
    first, second = codes[pairs["first"]], codes[pairs["second"]]
    edges = coo_array((np.ones(len(first)), (first, second)), shape=(len(names), len(names)))
    component = np.asarray(connected_components(edges, directed=False)[1])
    together = (
        pd.Series(names, dtype=str).groupby(component).agg(lambda group: "+".join(sorted(group)))
    )
    return pd.Series(together.to_numpy()[component[codes]], index=subjects.index, name="patient")


def _search(store: PixelStore) -> pd.DataFrame:
    _, first, inverse = np.unique(store.digests, axis=0, return_index=True, return_inverse=True)
    original = first[inverse.ravel()]
    copies = np.flatnonzero(original != np.arange(len(original)))
    identical = pd.DataFrame({"first": original[copies], "second": copies})
    # Backgrounds are alike in all images of a scanner, whoever's cells they show.
    rows = np.sort(first)
    rows = rows[~has_background(store.thumbs[rows])]
    near = _near_pairs(store.thumbs, rows)
    pairs = pd.concat(
        [identical.assign(kind="identical", score=1.0), near.assign(kind="near")],
        ignore_index=True,
    )
    log.info("%d identical and %d nearly identical pairs of images", len(identical), len(near))
    return pairs.sort_values(["first", "second"], ignore_index=True)


def _near_pairs(thumbs: Thumbs, rows: Rows) -> pd.DataFrame:
    """Pairs among ``rows`` that are alike in shape and then in texture."""
    found: list[tuple[int, int, float]] = []
    for pairs in _candidates(thumbs, rows):
        alike = _best_over_turns(_shape, thumbs, pairs) >= _SAME_SHAPE
        score = _best_over_turns(_texture, thumbs, pairs[alike])
        same = score >= SAME_TEXTURE
        found += [
            (int(a), int(b), round(float(value), 4))
            for (a, b), value in zip(pairs[alike][same], score[same], strict=True)
        ]
    return pd.DataFrame(found, columns=["first", "second", "score"])


def _candidates(thumbs: Thumbs, rows: Rows) -> Iterator[Rows]:
    """Pairs ``(P, 2)`` whose perceptual hashes are near each other, in chunks."""
    if len(rows) < 2:
        return
    chunks = np.array_split(rows, -(-len(rows) // _CHUNK))
    hashes = np.concatenate([perceptual_hash(thumbs[chunk]) for chunk in chunks])
    tree = cKDTree(hashes)
    near = tree.query(hashes, k=_NEIGHBORS + 1, distance_upper_bound=_RADIUS, workers=-1)
    distance, position = map(np.asarray, near)
    one, which = np.nonzero(np.isfinite(distance))
    pairs = np.sort(np.stack([rows[one], rows[position[one, which]]], axis=1), axis=1)
    pairs = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)
    for start in range(0, len(pairs), _CHUNK):
        yield pairs[start : start + _CHUNK]


def perceptual_hash(thumbs: Thumbs) -> Floats:
    """Low frequencies of the discrete cosine transform, the same however the image is turned.

    Mirroring changes their signs and transposing swaps the axes, so the magnitudes are kept and
    each pair of mirrored frequencies is sorted (after Zauner 2010, "Implementation and benchmarking
    of perceptual image hash functions", section 3.1).

    Args:
        thumbs: ``uint8 (N, H, H)``.

    Returns:
        ``(N, 35)``, for an Euclidean distance.
    """
    images = thumbs.astype(np.float32)
    images -= images.mean(axis=(1, 2), keepdims=True)
    images /= np.maximum(images.std(axis=(1, 2), keepdims=True), 1e-6) * thumbs.shape[1]
    low = np.abs(fft.dctn(images, axes=(1, 2), norm="ortho"))[:, :_FREQUENCIES, :_FREQUENCIES]
    u, v = np.triu_indices(_FREQUENCIES)
    one, other = low[:, u, v], low[:, v, u]
    off = u != v
    columns = [np.maximum(one, other)[:, 1:], np.minimum(one, other)[:, off]]
    hashes: Floats = np.concatenate(columns, axis=1).astype(np.float32)
    return hashes


def _shape(thumbs: Thumbs) -> Floats:
    """Half-size images of zero mean and unit length."""
    half = thumbs.reshape(len(thumbs), THUMB // 2, 2, THUMB // 2, 2).mean(axis=(2, 4))
    return _unit(half - half.mean(axis=(1, 2), keepdims=True))


def _texture(thumbs: Thumbs) -> Floats:
    """What is finer than shading, inside the cell and away from its border, of unit length."""
    images = thumbs.astype(np.float32)
    inside = (images > 2 * LIT).astype(np.float32)
    near = (0, THUMB / 21, THUMB / 21)
    shading = gaussian_filter(images * inside, near) / np.maximum(
        gaussian_filter(inside, near), 1e-3
    )
    core = binary_erosion(inside, np.ones((1, 9, 9), bool))
    return _unit(gaussian_filter((images - shading) * core, (0, 0.7, 0.7)))


def _unit(images: npt.NDArray[np.float64] | Floats) -> Floats:
    length = np.sqrt((images**2).sum(axis=(1, 2), keepdims=True))
    scaled: Floats = (images / np.maximum(length, 1e-6)).astype(np.float32)
    return scaled


def turned_to_match(first: Thumbs, second: Thumbs, picture: Thumbs) -> Thumbs:
    """A picture turned and mirrored as ``second`` has to be to look most like ``first``.

    Args:
        first: ``uint8 (64, 64)``.
        second: likewise.
        picture: ``uint8 (R, R, 3)``, of what ``second`` shows.
    """
    correlations = _over_turns(_texture(first[None]), _texture(second[None]))
    turn = int(np.argmax(np.concatenate(correlations)))
    turned: Thumbs = list(_turns(picture[None]))[turn][0]
    return turned


def _best_over_turns(prepare: Callable[[Thumbs], Floats], thumbs: Thumbs, pairs: Rows) -> Floats:
    """Largest correlation of each pair over the 8 turns and mirrorings and over small shifts."""
    if not len(pairs):
        return np.empty(0, np.float32)
    first, second = prepare(thumbs[pairs[:, 0]]), prepare(thumbs[pairs[:, 1]])
    best: Floats = np.max(_over_turns(first, second), axis=0)
    return best


def _over_turns(first: Floats, second: Floats) -> list[Floats]:
    """Largest correlation ``(N,)`` over small shifts, for each turn of ``second``."""
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
    """The 8 turns and mirrorings of images ``(N, H, H, ...)``."""
    for quarter in range(4):
        turned = np.rot90(images, quarter, axes=(1, 2))
        yield turned
        yield turned[:, :, ::-1]
