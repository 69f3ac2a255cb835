"""The C-NMC 2019 cells: from a folder to a table of cells, and a data set over it.

First station of the flow: everything later refers to cells by their row in this table.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from PIL import Image
from torchvision.datasets import VisionDataset

from leuk.data.pixels import Frame, Framing, PixelStore
from leuk.errors import DataError

log = logging.getLogger(__name__)


class Label(IntEnum):
    """The two classes of C-NMC; leukemic is the positive one everywhere."""

    HEM = 0
    """Healthy."""
    ALL = 1
    """Acute lymphoblastic leukemia: positive."""

    @property
    def folder(self) -> str:
        """The name of the class in C-NMC's folders and file names."""
        return self.name.lower()


IMAGE_SUFFIXES = {".bmp", ".png"}
_FOLDERS = {label.folder: label for label in Label}
_NAME = re.compile(r"UID_[Hh]?(?P<subject>\d+)_(?P<image>\d+)_(?P<cell>\d+)_(?P<label>all|hem)")


def index_cells(root: Path) -> pd.DataFrame:
    """List the cell images under ``root`` that lie in C-NMC's ``fold_*/{all,hem}`` folders.

    Args:
        root: a folder at or above the fold folders.

    Returns:
        One row a cell, sorted by path, with the columns ``path`` (relative to ``root``, with
        forward slashes), ``label`` (a :class:`Label`), ``subject`` (unique over both classes, such
        as ``ALL-11``) and ``part`` (such as ``fold_0``).

    Raises:
        DataError: no folder there, no cells in it, or a file whose name contradicts its folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; point data.root=DIR at the C-NMC images")
    rows = [_row(root, part, label, path) for part, label, path in _images(root)]
    if not rows:
        raise DataError(
            f"{root}: no cell images in fold_*/all or fold_*/hem below it; "
            "point data.root=DIR at the folder that holds C-NMC_training_data"
        )
    table = pd.DataFrame(rows, columns=["path", "label", "subject", "part"])
    return table.sort_values("path", ignore_index=True)


def _images(root: Path) -> Iterator[tuple[str, Label, Path]]:
    stray = 0
    for folder, subfolders, files in os.walk(root):
        subfolders.sort()
        here = Path(folder)
        label = _FOLDERS.get(here.name.lower())
        part = here.parent.name
        if label is None or not part.startswith("fold_"):
            continue
        for name in files:
            path = here / name
            if path.suffix.lower() in IMAGE_SUFFIXES and _NAME.fullmatch(path.stem):
                yield part, label, path
            else:
                stray += 1
                log.warning("%s: not a C-NMC cell image; ignored", path)
    if stray:
        log.warning("%s: %d stray files ignored", root, stray)


def _row(root: Path, part: str, label: Label, path: Path) -> tuple[str, int, str, str]:
    match = _NAME.fullmatch(path.stem)
    assert match is not None
    if _FOLDERS[match["label"]] is not label:
        raise DataError(
            f"{path}: the folder says {label.folder}, the name says {match['label']}; "
            "move or remove the file"
        )
    # 19 numbers stand for two subjects, one of each class, so the class belongs to the key.
    subject = f"{label.name}-{int(match['subject'])}"
    return path.relative_to(root).as_posix(), int(label), subject, part


class CNMC(VisionDataset):  # type: ignore[misc]
    """C-NMC 2019 cells, used like :class:`torchvision.datasets.CIFAR10`.

    Every image is decoded once, to a memory-mapped store that later starts find again.

    Attributes:
        cells: the table of :func:`index_cells`; row ``i`` is image ``i``.
        data: ``uint8 (N, resolution, resolution, 3)``, memory-mapped.
        targets: ``N`` labels, 1 = leukemic.
        classes: class names in the order of their labels.

    Args:
        root: a folder at or above the fold folders.
        parts: names of the parts to keep, such as ``["fold_0"]``; all if None.
        transform: takes and returns a PIL image.
        target_transform: takes and returns a label.
        resolution: pixels a side.
        framing: the part of each image that is kept, see :class:`leuk.data.pixels.Frame`.
        cache: folder of the pixel store.
        on_corrupt: ``raise``, or ``skip`` to leave unreadable images out with a warning.

    Raises:
        DataError: no cells, a part that is not there, or an image that cannot be read.
    """

    classes: ClassVar = [label.folder for label in Label]
    class_to_idx: ClassVar = {label.folder: int(label) for label in Label}

    def __init__(
        self,
        root: str | Path,
        parts: Sequence[str] | None = None,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        *,
        resolution: int = 224,
        framing: Framing = "full",
        cache: str | Path = "outputs/artefacts",
        on_corrupt: str = "raise",
    ) -> None:
        root = Path(root).expanduser()
        super().__init__(root, transform=transform, target_transform=target_transform)
        cells = index_cells(root)
        if parts is not None:
            cells = keep_parts(cells, parts)
        self.store = PixelStore.open(
            cells, root, Frame(resolution, framing), Path(cache), on_corrupt
        )
        self.cells = cells.iloc[self.store.kept].reset_index(drop=True)
        self.data = self.store.pixels
        self.targets: list[int] = self.cells["label"].tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image: Any = Image.fromarray(self.data[index])
        label: Any = self.targets[index]
        if self.transforms is not None:
            image, label = self.transforms(image, label)
        return image, label


def keep_parts(cells: pd.DataFrame, parts: Sequence[str]) -> pd.DataFrame:
    """The rows of ``cells`` that belong to ``parts``.

    Raises:
        DataError: a part that no cell belongs to; the parts there are, are named.
    """
    there = sorted(cells["part"].unique())
    for part in parts:
        if part not in there:
            raise DataError(f"no part {part} in the data; there are {', '.join(there)}")
    return cells[cells["part"].isin(parts)].reset_index(drop=True)
