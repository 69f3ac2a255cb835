"""The pixel store: every image decoded and resized once, then memory-mapped.

Sits between the table of cells and everything that looks at pixels.
"""

import hashlib
import json
import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.progress import track

from leuk.data.decode import DIGEST, SKIP, THUMB, Decoded, Frame, UnusableError, decode
from leuk.errors import DataError, StoreError
from leuk.store.artifacts import discard, make_once
from leuk.store.atomic import ensure_room, write_json
from leuk.store.digest import digest
from leuk.store.foreign import read_arrays

log = logging.getLogger(__name__)

FORMAT = 4
"""Part of every store's key: raise it when decoding or resizing changes."""

CUT = 0.005
"""Share of a cell's area; the frame cuts a cell of which it leaves out more."""

_AHEAD = 256
"""Images decoded before they are asked for; bounds the memory that decoding takes."""

_NAMED = 10
"""Images that are named where there may be many."""

_NO_PIXELS = np.empty(0, np.uint8)


@dataclass(frozen=True)
class PixelStore:
    """Decoded cells; row ``i`` of every array is the same image.

    Attributes:
        pixels: ``uint8 (N, R, R, 3)`` RGB, memory-mapped; writing to it does not reach the file.
        thumbs: ``uint8 (N, 64, 64)`` gray squares around the cells, memory-mapped.
        digests: ``(N, 16)`` bytes, equal for identical images.
        areas: ``float32 (N,)`` share of the image that the cell covers.
        sizes: ``int32 (N, 2)`` width and height of the files.
        outside: ``float32 (N,)`` share of the cell's area that the frame cuts off.
        at_border: ``bool (N,)``, true where the cell touches the border of its image.
        kept: ``(N,)`` positions in the table that was decoded; shorter than the table where
            unreadable images were skipped.
        errors: what was wrong with those that were skipped.
        fingerprint: hash of all pixels, names and labels, the same on every host.
        folder: where it lies.
    """

    pixels: npt.NDArray[np.uint8]
    thumbs: npt.NDArray[np.uint8]
    digests: npt.NDArray[np.uint8]
    areas: npt.NDArray[np.float32]
    sizes: npt.NDArray[np.int32]
    outside: npt.NDArray[np.float32]
    at_border: npt.NDArray[np.bool_]
    kept: npt.NDArray[np.int64]
    errors: list[str]
    fingerprint: str
    folder: Path

    @classmethod
    def open(
        cls, cells: pd.DataFrame, root: Path, frame: Frame, cache: Path, on_corrupt: str
    ) -> "PixelStore":
        """Find the store of these cells, or decode it.

        Args:
            cells: a table with ``path``, ``label`` and ``name``.
            root: the folder that the paths start from.
            frame: what part of each image is kept, and at what size.
            cache: folder of artifacts.
            on_corrupt: ``raise``, or ``skip`` to leave unreadable images out.

        Raises:
            DataError: an image that cannot be read, with ``on_corrupt="raise"``.
            StoreError: no room for the store.
        """
        files = [
            [path, label, *_stamp(root / path)]
            for path, label in zip(cells["path"], cells["label"].tolist(), strict=True)
        ]
        key = {
            "format": FORMAT,
            "files": digest(files),
            "frame": asdict(frame),
        }

        def build(target: Path) -> None:
            ensure_room(target, len(cells) * (3 * frame.resolution**2 + THUMB**2))
            _decode_all(cells, root, frame, target)

        store = cls._load(make_once(cache, "pixels", key, build), frame.resolution)
        if store._can_be_mended([root / path for path in cells["path"]], frame):
            discard(store.folder)
            store = cls._load(make_once(cache, "pixels", key, build), frame.resolution)
        _refuse(store.errors, len(cells), on_corrupt)
        return store

    def _can_be_mended(self, paths: Sequence[Path], frame: Frame) -> bool:
        """Whether a file that could not be read can be read now, its size and date unchanged."""
        missing = np.setdiff1d(np.arange(len(paths)), self.kept)
        return any(isinstance(_attempt(paths[row], frame), Decoded) for row in missing)

    @classmethod
    def _load(cls, folder: Path, resolution: int) -> "PixelStore":
        try:
            facts: dict[str, Any] = json.loads((folder / "facts.json").read_text())
            columns = read_arrays(folder / "cells.npz")
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder}: no store of pixels ({error}); remove it") from error
        count = len(columns["kept"])

        def mapped(name: str, *shape: int) -> npt.NDArray[np.uint8]:
            if not count:
                return np.empty((0, *shape), np.uint8)
            # Copy-on-write: torch warns of read-only memory, and nothing reaches the file.
            return np.memmap(folder / name, np.uint8, mode="c", shape=(count, *shape))

        return cls(
            pixels=mapped("pixels.raw", resolution, resolution, 3),
            thumbs=mapped("thumbs.raw", THUMB, THUMB),
            errors=facts["errors"],
            fingerprint=facts["fingerprint"],
            folder=folder,
            **columns,
        )


def size_of(path: Path) -> int:
    """Bytes of a file; -1 where there is none, such as at the end of a broken link."""
    return _stamp(path)[0]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:  # decoding will say what is wrong
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _attempt(path: Path, frame: Frame) -> Decoded | UnusableError:
    try:
        return decode(path, frame)
    except UnusableError as error:
        return error


def _decode_all(cells: pd.DataFrame, root: Path, frame: Frame, target: Path) -> None:
    """Decode every image of ``cells`` into ``target``, on all cores, in bounded memory."""
    started = time.perf_counter()
    content = hashlib.sha256()
    kept: list[int] = []
    facts: list[Decoded] = []
    bad: list[UnusableError] = []
    decoded = decoded_ahead([root / path for path in cells["path"]], frame)
    with open(target / "pixels.raw", "wb") as pixels, open(target / "thumbs.raw", "wb") as thumbs:
        for row, image in enumerate(track(decoded, f"decoding {len(cells)} cells", len(cells))):
            if isinstance(image, UnusableError):
                bad.append(image)
                continue
            kept.append(row)
            facts.append(replace(image, pixels=_NO_PIXELS, thumb=_NO_PIXELS))
            raw = image.pixels.tobytes()
            content.update(raw)
            pixels.write(raw)
            thumbs.write(image.thumb.tobytes())
    _save_facts(target, kept, facts)
    content.update(digest(cells.iloc[kept][["name", "label"]].to_numpy().tolist()).encode())
    write_json(
        target / "facts.json",
        {"fingerprint": content.hexdigest()[:16], "errors": [str(error) for error in bad]},
    )
    seconds = time.perf_counter() - started
    log.info("decoded %d cells in %.1f s (%.0f/s)", len(kept), seconds, len(kept) / seconds)


def decoded_ahead(paths: Sequence[Path], frame: Frame) -> Iterator[Decoded | UnusableError]:
    """Each image in order, decoded on all cores a little ahead of its turn.

    Args:
        paths: of the files.
        frame: what part of each image is kept, and at what size.

    Returns:
        An image, or what is wrong with its file.
    """
    # Pillow lets go of the interpreter lock while it inflates and resizes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: deque[Future[Decoded | UnusableError]] = deque()
        for path in paths:
            waiting.append(pool.submit(_attempt, path, frame))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _refuse(bad: Sequence[str], count: int, on_corrupt: str) -> None:
    if len(bad) == count:
        # To skip them would leave no image.
        first = bad[0].removesuffix(SKIP)
        raise DataError(f"none of the {count} images can be read; the first: {first}")
    if bad and on_corrupt == "raise":
        more = f" (and {len(bad) - 1} more such files)" if len(bad) > 1 else ""
        raise DataError(f"{bad[0]}{more}")
    for error in bad[:_NAMED]:
        log.warning("left out: %s", error)
    if len(bad) > _NAMED:
        log.warning("left out: and %d more; leuk data lists them", len(bad) - _NAMED)


def _save_facts(target: Path, kept: Sequence[int], facts: Sequence[Decoded]) -> None:
    digests = b"".join(one.digest for one in facts)
    np.savez(
        target / "cells.npz",
        kept=np.array(kept, np.int64),
        digests=np.frombuffer(digests, np.uint8).reshape(len(kept), DIGEST),
        areas=np.array([one.area for one in facts], np.float32),
        sizes=np.array([one.size for one in facts], np.int32).reshape(len(kept), 2),
        outside=np.array([one.outside for one in facts], np.float32),
        at_border=np.array([one.at_border for one in facts], np.bool_),
    )
