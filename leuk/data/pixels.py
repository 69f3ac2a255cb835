"""The pixel store: every image decoded and resized once, then memory-mapped.

Sits between the table of cells and everything that looks at pixels.
"""

import hashlib
import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from rich.progress import track

from leuk.errors import DataError
from leuk.store.artefacts import make_once
from leuk.store.atomic import write_json
from leuk.store.digest import digest

log = logging.getLogger(__name__)

FORMAT = 1
"""Part of every store's key: raise it when decoding or resizing changes."""


Framing = Literal["full", "crop300"]

_SHARES: dict[str, float] = {"full": 1.0, "crop300": 300 / 450}


@dataclass(frozen=True)
class Frame:
    """What part of each image is kept, and at what size.

    Both keep the scale the same for all cells, so that the size of a cell keeps its meaning.

    Attributes:
        resolution: pixels a side after resizing.
        framing: ``full``, or ``crop300`` for the central 300 of C-NMC's 450 pixels (the central two
            thirds of an image of another size).
    """

    resolution: int
    framing: Framing = "full"

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, upper, right and lower edge, in pixels of the image."""
        margin = (1 - _SHARES[self.framing]) / 2
        return (margin * width, margin * height, (1 - margin) * width, (1 - margin) * height)


@dataclass(frozen=True)
class PixelStore:
    """Decoded cells.

    Attributes:
        pixels: ``uint8 (N, R, R, 3)`` RGB, memory-mapped; writing to it does not reach the file.
        kept: ``(N,)`` positions in the table that was decoded; shorter than the table where
            unreadable images were skipped.
        fingerprint: hash of all pixels, names and labels, the same on every host.
    """

    pixels: npt.NDArray[np.uint8]
    kept: npt.NDArray[np.int64]
    fingerprint: str

    @classmethod
    def open(
        cls,
        cells: pd.DataFrame,
        root: Path,
        frame: Frame,
        cache: Path,
        on_corrupt: str,
    ) -> "PixelStore":
        """Find the store of these cells, or decode it.

        Args:
            cells: a table with ``path`` and ``label``.
            root: the folder that the paths start from.
            frame: what part of each image is kept, and at what size.
            cache: folder of artefacts.
            on_corrupt: ``raise``, or ``skip`` to leave unreadable images out.

        Raises:
            DataError: an image that cannot be read, with ``on_corrupt="raise"``.
        """
        stats = [os.stat(root / path) for path in cells["path"]]
        key = {
            "format": FORMAT,
            "files": digest(
                [
                    [path, label, stat.st_size, stat.st_mtime_ns]
                    for path, label, stat in zip(cells["path"], cells["label"], stats, strict=True)
                ]
            ),
            "frame": asdict(frame),
            "on_corrupt": on_corrupt,
        }
        folder = make_once(
            cache,
            "pixels",
            key,
            lambda target: _decode_all(cells, root, frame, target, on_corrupt),
        )
        return cls(
            # Copy-on-write: torch warns of read-only memory, and nothing reaches the file.
            pixels=np.load(folder / "pixels.npy", mmap_mode="c"),
            kept=np.load(folder / "kept.npy"),
            fingerprint=json.loads((folder / "facts.json").read_text())["fingerprint"],
        )


def decode(path: Path, frame: Frame) -> npt.NDArray[np.uint8]:
    """Read one RGB image, keep its frame and resize that with an antialiased triangle filter.

    The filter has no negative lobes, so the black around a cell stays black.

    Returns:
        ``uint8 (resolution, resolution, 3)``.

    Raises:
        DataError: the file is missing, truncated, not an image, or not 8-bit RGB.
    """
    try:
        with Image.open(path) as image:
            if image.mode != "RGB":
                raise DataError(f"{path}: {image.mode} image where 8-bit RGB was expected")
            size = (frame.resolution, frame.resolution)
            box = frame.box(*image.size)
            return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{path}: {_what_is_wrong(path, error)}; replace the file or set data.on_corrupt=skip"
        ) from error


def _what_is_wrong(path: Path, error: Exception) -> str:
    """Name the fault; a BMP carries its own length, so a truncated one can be told."""
    try:
        head = path.read_bytes()[:6]
        found = path.stat().st_size
    except OSError as unreadable:
        return str(unreadable.strerror)
    expected = int.from_bytes(head[2:6], "little")
    if head[:2] == b"BM" and found < expected:
        return f"truncated BMP (expected {expected} bytes, found {found})"
    return f"cannot be read ({error})"


def _decode_all(
    cells: pd.DataFrame, root: Path, frame: Frame, target: Path, on_corrupt: str
) -> None:
    """Decode every image of ``cells`` into ``target``, on all cores."""
    started = time.perf_counter()
    paths = [root / path for path in cells["path"]]
    shape = (len(paths), frame.resolution, frame.resolution, 3)
    pixels = np.lib.format.open_memmap(target / "all.npy", "w+", np.uint8, shape)

    def decode_into(row: int) -> DataError | None:
        try:
            pixels[row] = decode(paths[row], frame)
        except DataError as error:
            return error
        return None

    # Pillow lets go of the interpreter lock while it inflates and resizes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = track(
            pool.map(decode_into, range(len(paths))), f"decoding {len(paths)} cells", len(paths)
        )
        errors = list(results)
    kept = _kept(errors, on_corrupt)
    _save(target, pixels, kept, cells)
    seconds = time.perf_counter() - started
    log.info("decoded %d cells in %.1f s (%.0f/s)", len(kept), seconds, len(kept) / seconds)


def _kept(errors: list[DataError | None], on_corrupt: str) -> npt.NDArray[np.int64]:
    bad = [error for error in errors if error is not None]
    if bad and on_corrupt == "raise":
        more = f" (and {len(bad) - 1} more such files)" if len(bad) > 1 else ""
        raise DataError(f"{bad[0]}{more}")
    if len(bad) == len(errors):
        raise DataError(f"none of the {len(errors)} images can be read; the first: {bad[0]}")
    for error in bad:
        log.warning("left out: %s", error)
    return np.flatnonzero([error is None for error in errors])


def _save(
    target: Path, pixels: npt.NDArray[np.uint8], kept: npt.NDArray[np.int64], cells: pd.DataFrame
) -> None:
    """Write the kept pixels, their positions and their hash."""
    whole = target / "pixels.npy"
    if len(kept) == len(pixels):
        pixels.flush()  # type: ignore[attr-defined]
        os.replace(target / "all.npy", whole)
    else:
        shape = (len(kept), *pixels.shape[1:])
        packed = np.lib.format.open_memmap(whole, "w+", np.uint8, shape)
        for row, position in enumerate(kept):
            packed[row] = pixels[position]
        pixels = packed
        (target / "all.npy").unlink()
    kept_cells = cells.iloc[kept]
    names = [[Path(path).name, label] for path, label in kept_cells[["path", "label"]].to_numpy()]
    content = hashlib.sha256(digest(names).encode())
    for start in range(0, len(pixels), 1024):
        content.update(pixels[start : start + 1024].tobytes())
    np.save(target / "kept.npy", kept)
    write_json(target / "facts.json", {"fingerprint": content.hexdigest()[:16]})
