"""C-NMC 2019 as a data set: table of images and decoded pixels.

All later modules refer to images by their row in this table.
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
    """List the images below ``root``, in any layout of :func:`leuk.data.layouts.read_folder`.

    Args:
        root: a folder at or above the images.
        on_corrupt: ``raise``, or ``skip`` to omit files and table rows that contradict each other.

    Returns:
        The table of :class:`leuk.data.layouts.Index`, including unlabeled images.

    Raises:
        DataError: the folder is missing or has no images, or, with ``raise``, a contradiction.
    """
    index = read_folder(root)
    if index.problems and on_corrupt == "raise":
        raise DataError(_problem_message(root, index.problems))
    for problem in index.problems[:_PROBLEMS]:
        log.warning("skipped: %s", problem)
    if len(index.problems) > _PROBLEMS:
        log.warning("skipped: and %d more; leuk data lists them", len(index.problems) - _PROBLEMS)
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


def _problem_message(root: Path, problems: Sequence[Problem]) -> str:
    more = f" (and {len(problems) - 1} more; leuk data lists them)" if len(problems) > 1 else ""
    return f"{root}: {problems[0]}, or set data.on_corrupt=skip{more}"


class CNMC(VisionDataset):  # type: ignore[misc]
    """C-NMC 2019, used like :class:`torchvision.datasets.CIFAR10`.

    Images are decoded once, into a memory-mapped store that later runs reuse.

    Attributes:
        index: the table of :func:`index_images`; row ``i`` is image ``i``.
        listed: the same table including unreadable images.
        store: the decoded images with areas, sizes and thumbnails.
        data: ``uint8 (N, resolution, resolution, 3)``, memory-mapped.
        targets: ``N`` labels, 1 = leukemic, 0 = healthy, -1 = unlabeled.
        classes: class names in the order of their labels.

    Args:
        root: a folder at or above the fold folders.
        parts: source folds to keep, such as ``["fold_0"]``; all labeled images if None.
        transform: function from PIL image to PIL image.
        target_transform: function from label to label.
        resolution: pixels per side.
        framing: crop of each image, see :class:`leuk.data.decode.Frame`.
        canvas: side in pixels of the square to which images are first cropped or padded; None for
            the longer side of each image.
        cache: folder of the pixel store.
        on_corrupt: ``raise``, or ``skip`` to omit unreadable files with a warning.

    Raises:
        DataError: no images, a missing source fold, or an unreadable image.
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
        table = index_images(root, on_corrupt)
        table = labeled_images(table) if parts is None else select_source_folds(table, parts)
        self.listed = table
        self.store = PixelStore.open(
            table, root, Frame(resolution, framing, canvas), Path(cache), on_corrupt
        )
        self.index = table.iloc[self.store.kept].reset_index(drop=True)
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


def labeled_images(table: pd.DataFrame) -> pd.DataFrame:
    """Select the images with a label.

    Raises:
        DataError: no image has a label.
    """
    labeled = table[table["label"] != UNLABELED]
    unlabeled = table.loc[table["label"] == UNLABELED, "source_fold"]
    for fold, count in unlabeled.value_counts().items():
        log.info("%d unlabeled images of %s are not used", count, fold)
    if labeled.empty:
        raise DataError(
            f"none of the {len(table)} images has a label; put the preliminary set's table "
            "C-NMC_test_prelim_phase_data_labels.csv beside its folder"
        )
    return labeled.reset_index(drop=True)


def select_source_folds(table: pd.DataFrame, folds: Sequence[str]) -> pd.DataFrame:
    """Select the images of some source folds.

    Raises:
        DataError: a source fold has no images; the message lists those that have.
    """
    found = sorted(table["source_fold"].unique())
    for fold in folds:
        if fold not in found:
            raise DataError(f"parts: no source fold {fold}; choose from {', '.join(found)}")
    return table[table["source_fold"].isin(folds)].reset_index(drop=True)
