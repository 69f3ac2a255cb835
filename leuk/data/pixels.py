"""Pixel store: all images of a table, decoded and resized once, then memory-mapped."""

import hashlib
import json
import logging
import mmap
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from rich.progress import track
from torch import Tensor

from leuk.data.decode import DIGEST, SKIP, THUMB, Decoded, Frame, UnusableError, decode
from leuk.data.layouts import warn_of_skipped
from leuk.errors import DataError
from leuk.store import digest, discard, ensure_room, make_once, read_arrays, write_json

log = logging.getLogger(__name__)

FORMAT = 5
"""Version in the cache key; increase it when decoding or resizing changes."""

_AHEAD = 256
"""Maximum number of images decoded in advance, which bounds the memory."""


@dataclass(frozen=True)
class PixelStore:
    """Decoded images; row ``i`` of each array belongs to the same image."""

    pixels: npt.NDArray[np.uint8]  # (N, R, R, 3) RGB, mapped; changes are not written to the file
    thumbs: npt.NDArray[np.uint8]  # (N, 64, 64), gray squares around the cells, mapped
    digests: npt.NDArray[np.uint8]  # (N, 16), equal for identical images
    areas: npt.NDArray[np.float32]  # (N,), share of the image that the cell covers
    sizes: npt.NDArray[np.int32]  # (N, 2), width and height of the files
    outside: npt.NDArray[np.float32]  # (N,), share of the cell's area that the frame cuts off
    at_border: npt.NDArray[np.bool_]  # (N,), the cell touches the border of its image
    kept: npt.NDArray[np.int64]  # (N,), positions in the table, without unreadable images
    errors: list[str]  # about the unreadable images
    fingerprint: str  # hash of all pixels, names and labels; equal on all hosts
    folder: Path

    @classmethod
    def open(
        cls, table: pd.DataFrame, root: Path, frame: Frame, cache: Path, on_corrupt: str
    ) -> "PixelStore":
        """Open the store of a table of images; decode them first if it does not exist.

        Args:
            table: table with ``path``, ``label`` and ``name``.
            root: folder to which the paths are relative.
            frame: crop and size of the decoded images.
            cache: folder of artifacts.
            on_corrupt: ``raise``, or ``skip`` to omit unreadable images.

        Raises:
            DataError: no image is readable, or with ``raise`` an image is not.
            StoreError: the disk has not enough space.
        """
        paths = [root / path for path in table["path"]]
        files = zip(table["path"], table["label"].tolist(), map(_stamp, paths), strict=True)
        key = {
            "format": FORMAT,
            "files": digest([[path, label, *stamp] for path, label, stamp in files]),
            "frame": asdict(frame),
        }

        def found() -> PixelStore:
            folder = make_once(cache, "pixels", key, lambda to: _build(table, root, frame, to))
            return cls._load(folder, frame.resolution)

        store = found()
        missing = np.setdiff1d(np.arange(len(paths)), store.kept)
        if any(isinstance(_attempt(paths[row], frame), Decoded) for row in missing):
            # An unreadable file became readable with the same size and date.
            discard(store.folder)
            store = found()
        bad = store.errors
        if len(bad) == len(table):
            # Skipping them would leave no image.
            first = bad[0].removesuffix(SKIP)
            raise DataError(f"none of the {len(table)} images can be read; the first: {first}")
        if bad and on_corrupt == "raise":
            more = f" (and {len(bad) - 1} more such files)" if len(bad) > 1 else ""
            raise DataError(f"{bad[0]}{more}")
        warn_of_skipped(bad)
        return store

    @classmethod
    def _load(cls, folder: Path, resolution: int) -> "PixelStore":
        facts: dict[str, Any] = json.loads((folder / "facts.json").read_text())
        columns = read_arrays(folder / "index.npz")
        count = len(columns["kept"])

        def mapped(name: str, *shape: int) -> npt.NDArray[np.uint8]:
            if not count:
                return np.empty((0, *shape), np.uint8)
            # Copy-on-write protects the file without torch's warning about read-only memory.
            return np.memmap(folder / name, np.uint8, mode="c", shape=(count, *shape))

        pixels = mapped("pixels.raw", resolution, resolution, 3)
        thumbs = mapped("thumbs.raw", THUMB, THUMB)
        read: dict[str, Any] = {**facts, **columns}
        return cls(pixels=pixels, thumbs=thumbs, folder=folder, **read)


def file_size(path: Path) -> int:
    """Size of a file in bytes; -1 if it does not exist, such as for a broken link."""
    return _stamp(path)[0]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:  # decoding reports the problem
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _build(table: pd.DataFrame, root: Path, frame: Frame, target: Path) -> None:
    """Decode all images of a table into ``target``, on all cores with bounded memory."""
    ensure_room(target, len(table) * (3 * frame.resolution**2 + THUMB**2))
    started = time.perf_counter()
    content = hashlib.sha256()
    rows: list[tuple[Any, ...]] = []
    errors: list[str] = []
    decoded = decode_ahead([root / path for path in table["path"]], frame)
    with open(target / "pixels.raw", "wb") as pixels, open(target / "thumbs.raw", "wb") as thumbs:
        for row, image in enumerate(track(decoded, f"decoding {len(table)} images", len(table))):
            if isinstance(image, UnusableError):
                errors.append(str(image))
                continue
            raw = image.pixels.tobytes()
            content.update(raw)
            pixels.write(raw)
            thumbs.write(image.thumb.tobytes())
            facts = (image.digest, image.area, image.size, image.outside, image.at_border)
            rows.append((row, *facts))
    kept, digests, areas, sizes, outside, at_border = zip(*rows, strict=True) if rows else [()] * 6
    np.savez(
        target / "index.npz",
        kept=np.array(kept, np.int64),
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(len(rows), DIGEST),
        areas=np.array(areas, np.float32),
        sizes=np.array(sizes, np.int32).reshape(len(rows), 2),
        outside=np.array(outside, np.float32),
        at_border=np.array(at_border, np.bool_),
    )
    content.update(digest(table.iloc[[*kept]][["name", "label"]].to_numpy().tolist()).encode())
    about = {"fingerprint": content.hexdigest()[:16], "errors": errors}
    write_json(target / "facts.json", about)
    seconds = time.perf_counter() - started
    log.info("decoded %d images in %.1f s (%.0f/s)", len(rows), seconds, len(rows) / seconds)


def decode_ahead(paths: Sequence[Path], frame: Frame) -> Iterator[Decoded | UnusableError]:
    """Decode images in order on all cores, a limited number of images ahead.

    Returns:
        Iterator of decoded images, with an error in place of each unusable image.
    """
    # Pillow releases the interpreter lock while it decompresses and resizes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: deque[Future[Decoded | UnusableError]] = deque()
        for path in paths:
            waiting.append(pool.submit(_attempt, path, frame))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _attempt(path: Path, frame: Frame) -> Decoded | UnusableError:
    try:
        return decode(path, frame)
    except UnusableError as error:
        return error


# --- Decoded images with a common row numbering, and batches gathered from them


class Batch(TypedDict):
    """Input of a Lightning module's step."""

    images: Tensor  # float32 (B, 3, R, R) in [0, 1], channels-last in memory
    labels: Tensor  # int64 (B,), see Label
    rows: Tensor  # int64 (B,), of the bank


def to_float(pixels: Tensor) -> Tensor:
    """Convert ``uint8 (B, R, R, 3)`` to ``float32 (B, 3, R, R)`` in [0, 1], channels-last."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)


class PixelBank:
    """Several ``uint8 (N, R, R, 3)`` arrays with a common row numbering.

    The arrays are not copied and can be memory maps; :meth:`to` copies all of them to a device with
    enough memory, where gathering then needs no transfer.
    """

    def __init__(
        self,
        arrays: Sequence[npt.NDArray[np.uint8] | dict[str, Any]],  # or arguments of a memory map
        labels: npt.NDArray[np.int64],
    ) -> None:
        self.arrays = [np.memmap(**one) if isinstance(one, dict) else one for one in arrays]
        self.tensors = [torch.from_numpy(array) for array in self.arrays]
        self.labels = torch.tensor(labels)
        self.starts = np.cumsum([0, *map(len, self.arrays)])

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle memory-mapped arrays by file name instead of content, for other processes."""
        arrays = [_file_reference(array) for array in self.arrays]
        return PixelBank, (arrays, self.labels.numpy())

    def to(self, device: torch.device) -> "PixelBank":
        """Return a copy on ``device`` if it fits into half of the free memory, otherwise self."""
        size = sum(tensor.numel() for tensor in self.tensors)
        if device.type != "cuda" or size > torch.cuda.mem_get_info(device)[0] // 2:
            return self
        moved = PixelBank(self.arrays, self.labels.numpy())
        moved.tensors = [torch.cat([tensor.to(device) for tensor in self.tensors])]
        moved.labels = self.labels.to(device)
        moved.starts = self.starts[[0, -1]]
        return moved

    def gather(self, rows: Tensor, device: torch.device) -> Batch:
        """Gather the rows ``(B,)`` as a batch on ``device``."""
        local = rows.to(self.labels.device, non_blocking=True)
        pixels = self._pixels(local).to(device, non_blocking=True)
        return Batch(
            images=to_float(pixels),
            labels=self.labels[local].to(device, non_blocking=True),
            rows=rows.to(device, non_blocking=True),
        )

    def _pixels(self, rows: Tensor) -> Tensor:
        if len(self.tensors) == 1:
            return self.tensors[0][rows]
        pixels = self.tensors[0].new_empty((len(rows), *self.tensors[0].shape[1:]))
        for tensor, start in zip(self.tensors, self.starts, strict=False):
            inside = (rows >= int(start)) & (rows < int(start) + len(tensor))
            pixels[inside] = tensor[rows[inside] - int(start)]
        return pixels


def _file_reference(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | dict[str, Any]:
    """Return the arguments that map the file again; the array itself if it is no complete map."""
    if not isinstance(array, np.memmap) or not isinstance(array.base, mmap.mmap):
        return array
    return {name: getattr(array, name) for name in ("filename", "dtype", "mode", "offset", "shape")}
