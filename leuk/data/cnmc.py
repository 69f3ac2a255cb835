"""C-NMC 2019 as a data set: the table of its cells, and their decoded pixels.

Everything later refers to cells by their row in this table.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
from PIL import Image
from torchvision.datasets import VisionDataset

from leuk.data.decode import Frame, Framing
from leuk.data.labels import UNLABELED, Label
from leuk.data.layouts import Problem, read_folder
from leuk.data.pixels import PixelStore
from leuk.data.unread import unread_message
from leuk.errors import DataError

log = logging.getLogger(__name__)

OnCorrupt = Literal["raise", "skip"]

_NAMED = 5
_PROBLEMS = 10


def index_images(root: Path, on_corrupt: OnCorrupt = "raise") -> pd.DataFrame:
    """List the cells under ``root``, in any layout of :func:`leuk.data.layouts.read_folder`.

    Args:
        root: a folder at or above the images.
        on_corrupt: ``raise``, or ``skip`` to leave out files and rows that contradict each other.

    Returns:
        The table of :class:`leuk.data.layouts.Index`, the unlabeled cells included.

    Raises:
        DataError: no folder there, no cells in it, or a contradiction with ``raise``.
    """
    index = read_folder(root)
    if index.problems and on_corrupt == "raise":
        raise DataError(_first_of(root, index.problems))
    for problem in index.problems[:_PROBLEMS]:
        log.warning("left out: %s", problem)
    if len(index.problems) > _PROBLEMS:
        log.warning("left out: and %d more; leuk data lists them", len(index.problems) - _PROBLEMS)
    if index.table.empty:
        raise DataError(unread_message(root, index.problems))
    if index.unread:
        named = ", ".join(problem.path for problem in index.unread[:_NAMED])
        more = ", ..." if len(index.unread) > _NAMED else ""
        log.warning(
            "%s: %d images not read, leuk data gives the reasons: %s%s",
            *(root, len(index.unread), named, more),
        )
    unread = {problem.path for problem in index.unread}
    strays = [path for path in index.strays if path not in unread]
    if strays:
        named = ", ".join(strays[:_NAMED])
        more = ", ..." if len(strays) > _NAMED else ""
        log.warning("%s: %d stray files ignored: %s%s", root, len(strays), named, more)
    return index.table


def _first_of(root: Path, problems: Sequence[Problem]) -> str:
    more = f" (and {len(problems) - 1} more; leuk data lists them)" if len(problems) > 1 else ""
    return f"{root}: {problems[0]}, or set data.on_corrupt=skip{more}"


class CNMC(VisionDataset):  # type: ignore[misc]
    """C-NMC 2019 cells, used like :class:`torchvision.datasets.CIFAR10`.

    Every image is decoded once, to a memory-mapped store that later starts find again.

    Attributes:
        cells: the table of :func:`index_images`; row ``i`` is image ``i``.
        listed: the same table before unreadable images were left out.
        store: what decoding left beside the pixels.
        data: ``uint8 (N, resolution, resolution, 3)``, memory-mapped.
        targets: ``N`` labels, 1 = leukemic, -1 = unlabeled.
        classes: class names in the order of their labels.

    Args:
        root: a folder at or above the fold folders.
        parts: names of the parts to keep, such as ``["fold_0"]``; all labeled cells if None.
        transform: takes and returns a PIL image.
        target_transform: takes and returns a label.
        resolution: pixels a side.
        framing: the part of each image that is kept, see :class:`leuk.data.decode.Frame`.
        canvas: side in pixels of the square that every image is brought to first; None for the
            longer side of each.
        cache: folder of the pixel store.
        on_corrupt: ``raise``, or ``skip`` to leave bad files out with a warning.

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
        canvas: int | None = None,
        cache: str | Path = "outputs/artifacts",
        on_corrupt: OnCorrupt = "raise",
    ) -> None:
        root = Path(root).expanduser()
        super().__init__(root, transform=transform, target_transform=target_transform)
        cells = index_images(root, on_corrupt)
        cells = labeled_images(cells) if parts is None else select_source_folds(cells, parts)
        self.listed = cells
        self.store = PixelStore.open(
            cells, root, Frame(resolution, framing, canvas), Path(cache), on_corrupt
        )
        self.index = cells.iloc[self.store.kept].reset_index(drop=True)
        self.data = self.store.pixels
        self.targets: list[int] = self.index["label"].tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image: Any = Image.fromarray(self.data[index])
        label: Any = self.targets[index]
        if self.transforms is not None:
            image, label = self.transforms(image, label)
        return image, label


def labeled_images(cells: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``cells`` whose class is known.

    Raises:
        DataError: there are none.
    """
    labeled = cells[cells["label"] != UNLABELED]
    for part, count in cells.loc[cells["label"] == UNLABELED, "source_fold"].value_counts().items():
        log.info("%d unlabeled images of %s are not used", count, part)
    if labeled.empty:
        raise DataError(
            f"none of the {len(cells)} images has a label; the preliminary set's are in "
            "C-NMC_test_prelim_phase_data_labels.csv, beside its folder"
        )
    return labeled.reset_index(drop=True)


def select_source_folds(cells: pd.DataFrame, parts: Sequence[str]) -> pd.DataFrame:
    """The rows of ``cells`` that belong to ``parts``.

    Raises:
        DataError: a part that no cell belongs to; the parts there are, are named.
    """
    there = sorted(cells["source_fold"].unique())
    for part in parts:
        if part not in there:
            raise DataError(f"no part {part} in the data; there are {', '.join(there)}")
    return cells[cells["source_fold"].isin(parts)].reset_index(drop=True)
