"""Lightning data modules: loaders yield row numbers, the device gathers and augments images."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from leuk.config.schema import Count, CountOrZero, Positive
from leuk.data.augment import Transforms
from leuk.data.decode import Frame, Framing
from leuk.data.labels import Label
from leuk.data.layouts import OnCorrupt, index_images, labeled_images
from leuk.data.links import link_images
from leuk.data.pixels import Batch, PixelBank, PixelStore, file_size
from leuk.data.scale import Scale, training_sizes
from leuk.data.splits import STAGES, Rule, Split, effective_patients
from leuk.errors import DataError
from leuk.store import digest


class Draws(DistributedSampler[int]):
    """Sampler with a fixed number of draws per epoch from concatenated random permutations.

    Permutation c has seed + c, and epoch e takes draws e * draws to (e + 1) * draws - 1 of the
    concatenation. Each image is therefore drawn once before any is drawn again, also across epochs;
    the expected class balance is that of all images; and the draws depend only on seed and epoch.
    With as many draws as images, an epoch is the permutation of :class:`DistributedSampler`. If
    ``draws``, over all processes, is no multiple of their number, the first are repeated.
    """

    def __init__(
        self, images: int, draws: int, processes: int = 1, rank: int = 0, seed: int = 0
    ) -> None:
        super().__init__(cast("Dataset[int]", range(images)), processes, rank, seed=seed)
        self.images = images
        self.draws = draws
        self.num_samples = -(-draws // processes)
        self.total_size = self.num_samples * processes

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.draws
        cycles = range(first // self.images, -(-(first + self.draws) // self.images))
        permutations = [
            torch.randperm(self.images, generator=torch.Generator().manual_seed(self.seed + cycle))
            for cycle in cycles
        ]
        drawn = torch.cat(permutations)[first - cycles[0] * self.images :][: self.draws]
        padded = torch.cat([drawn, drawn[: self.total_size - self.draws]])
        return iter(padded[self.rank :: self.num_replicas].tolist())


class ImageBatches(LightningDataModule):
    """Training batches from a bank of pixels, gathered and augmented on the device."""

    images_per_epoch: int | None = None
    """Training images drawn per epoch, see :class:`Draws`; None for one pass over all images."""

    def __init__(
        self,
        bank: PixelBank,
        train: npt.NDArray[np.int64],  # rows of the training images, (N,)
        batch_size: int,  # over all processes of a distributed fit
        workers: CountOrZero = 0,  # loader processes; they do not change the order
        seed: int = 0,  # of the order of the training rows, which changes each epoch
        transforms: Callable[[Tensor], Tensor] | None = None,  # of training batches (B, 3, R, R)
    ) -> None:
        super().__init__()
        self.bank = bank
        self.train = train
        self.batch_size = batch_size
        self.workers = workers
        self.seed = seed
        self.transforms = transforms
        self._resident: PixelBank | None = None

    def train_dataloader(self) -> DataLoader[int]:
        """Training rows in an order that depends on seed and epoch; drops a last partial batch."""
        return self._loader(self.train, shuffle=True)

    def _loader(self, rows: npt.NDArray[np.int64], shuffle: bool = False) -> DataLoader[int]:
        dataset = cast("Dataset[int]", rows.tolist())  # a list is enough for loaders
        # The order depends only on seed and epoch, so a resumed run draws the same images.
        # Distributed samplers pad the last batch; predictions are de-duplicated by row.
        processes = self.trainer.world_size if self.trainer else 1
        rank = self.trainer.global_rank if self.trainer else 0
        draws = (self.images_per_epoch if shuffle else None) or len(rows)
        sampler: DistributedSampler[int] = (
            Draws(len(rows), draws, processes, rank, self.seed)
            if shuffle
            else DistributedSampler(dataset, processes, rank, shuffle=False)
        )
        return DataLoader(
            dataset,
            batch_size=max(1, min(self.batch_size, draws) // processes),
            sampler=sampler,
            num_workers=self.workers,
            # By default, the loader draws from the global generator, more often without workers.
            generator=torch.Generator().manual_seed(self.seed),
            persistent_workers=self.workers > 0,
            collate_fn=torch.tensor,
            drop_last=shuffle,
        )

    def transfer_batch_to_device(
        self, batch: Tensor, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Gather the images of the rows ``(B,)`` on ``device``."""
        if self._resident is None:
            self._resident = self.bank.to(device)
        return self._resident.gather(batch, device)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training batches."""
        if self.transforms is not None and self.trainer and self.trainer.training:
            batch["images"] = self.transforms(batch["images"])
        return batch


_CHUNK = 1024

_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class LabeledImages:
    """Labeled images of a folder, decoded once."""

    index: pd.DataFrame  # of link_images; row i is image i
    listed: pd.DataFrame  # of index_images, with unreadable images too
    store: PixelStore

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """Pixels ``uint8 (N, resolution, resolution, 3)``, memory-mapped."""
        return self.store.pixels

    def __len__(self) -> int:
        return len(self.index)


class CNMCDataModule(ImageBatches):
    """C-NMC 2019 with a split, similar to Lightning's CIFAR10 data module.

    Args:
        root: folder of the images, see :func:`leuk.data.layouts.index_images`.
        split: rule that assigns images to stages.
        framing: crop of each image, see :class:`leuk.data.decode.Frame`.
        cache: folder of artifacts, which holds the pixel store.
        on_corrupt: ``raise``, or ``skip`` to omit unreadable files.
        frame: field of view of each image along its longer side, in pixels of the microscope's
            original frame (450 for C-NMC, also after resizing) or in µm; None if unknown. Does not
            change pixels here; images of other sizes, as in ``leuk predict``, are scaled to it.
        pixel_size: side of one pixel of each image in the same unit (1 for images that were never
            resized), instead of ``frame``; images of several sizes are padded with black to the
            size of the largest.
        others: see :class:`ImageBatches`.
    """

    def __init__(
        self,
        root: str,
        split: Rule,
        resolution: Count = 224,
        framing: Framing = "full",
        batch_size: Count = 32,
        workers: CountOrZero = 0,
        seed: int = 0,
        transforms: Transforms | None = None,
        cache: str = "outputs/artifacts",
        on_corrupt: OnCorrupt = "raise",
        frame: Positive | None = None,
        pixel_size: Positive | None = None,
    ) -> None:
        self.root = Path(root).expanduser()
        self.resolution = resolution
        self.framing = framing
        self.cache = Path(cache)
        self.on_corrupt = on_corrupt
        self.field = frame
        self.pixel_size = pixel_size
        self.rule = split
        self._dataset: LabeledImages | None = None
        self.split = Split(_NONE, _NONE, _NONE)
        # The bank is empty until setup().
        super().__init__(PixelBank([], _NONE), _NONE, batch_size, workers, seed, transforms)

    @property
    def dataset(self) -> LabeledImages:
        """All labeled images below the root, with linked subjects, before any split."""
        if self._dataset is None:
            listed = labeled_images(index_images(self.root, self.on_corrupt))
            store = PixelStore.open(listed, self.root, self.view, self.cache, self.on_corrupt)
            index = link_images(listed.iloc[store.kept].reset_index(drop=True), store)
            if self.on_corrupt == "raise" and index["conflict"].any():
                path = index.loc[index["conflict"], "path"].iloc[0]
                raise DataError(
                    f"{self.root / path}: an identical image has the other label; find it with "
                    "leuk data and remove both, or set data.on_corrupt=skip"
                )
            self._dataset = LabeledImages(index, listed, store)
        return self._dataset

    @cached_property
    def view(self) -> Frame:
        """Crop and size of the decoded images."""
        canvas = None
        if self.pixel_size is not None:
            canvas = max(map(max, training_sizes(self.root)), default=None)
        return Frame(self.resolution, self.framing, canvas)

    def scale(self) -> Scale:
        """Field of view of the images, with the range of cell areas of the training stage."""
        store = self.dataset.store
        derived = Scale.of_sizes(map(tuple, store.sizes.tolist()))
        field = derived.frame if self.field is None else float(self.field)
        if self.pixel_size is not None and self.view.canvas is not None:
            field = self.pixel_size * self.view.canvas
        areas = store.areas[self.split.train]
        bounds = (float(areas.min()), float(areas.max())) if len(areas) else None
        return Scale(derived.sizes, field, self.view.canvas, bounds)

    def prepare_data(self) -> None:
        """Decode the images and find linked subjects in one process, unless the store exists."""
        if not len(self.bank):
            _ = self.dataset

    def __getstate__(self) -> dict[str, Any]:
        """Pickle rows and bank for other processes of a fit, without table and device memory."""
        return {**self.__dict__, "_dataset": None, "_resident": None}

    def setup(self, stage: str | None = None) -> None:
        """Open the store and split the images; a second call has no effect."""
        if not len(self.bank):
            self.split = self.rule(self.dataset.index)
            self.train = self.split.train
            labels = self.dataset.index["label"].to_numpy(np.int64)
            self.bank = PixelBank([self.dataset.data], labels)

    def val_dataloader(self) -> DataLoader[int]:
        """Return a loader of the validation rows, in ascending order."""
        return self._loader(self.split.val)

    def test_dataloader(self) -> DataLoader[int]:
        """Test rows in ascending order."""
        return self._loader(self.split.test)

    def listing(self) -> str:
        """Hash of the names, labels and sizes of the files, which detects changed data."""
        if self._dataset is not None:
            table = self._dataset.listed
        else:  # without decoding
            table = labeled_images(index_images(self.root, self.on_corrupt))
        sizes = [file_size(self.root / path) for path in table["path"]]
        return digest([table[["name", "label", "source_fold"]].to_numpy().tolist(), sizes])

    def add_synthetic(self, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
        """Add synthetic images ``uint8 (N, R, R, 3)`` with labels ``(N,)`` to the training rows."""
        first = len(self.bank)
        self.bank = PixelBank(
            [self.dataset.data, pixels], np.concatenate([self.bank.labels.numpy(), labels])
        )
        self.repeat(np.arange(first, first + len(pixels)))

    def repeat(self, rows: npt.NDArray[np.int64]) -> None:
        """Add rows to the training rows, once more per epoch."""
        self.train = np.concatenate([self.train, rows])

    def expected_epoch(self) -> dict[str, float]:
        """Return the expected draws per epoch and class, with synthetic and repeated images."""
        labels = self.bank.labels.numpy()[self.train]
        share = (self.images_per_epoch or len(labels)) / len(labels)
        return {label.folder: float((labels == label).sum() * share) for label in reversed(Label)}

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel, in [0, 1], of the real training images."""
        rows = self.stage("train").index.to_numpy()
        total, squares, count = np.zeros(3), np.zeros(3), 0
        for images in self._chunks(rows):
            pixels = images.reshape(-1, 3) / 255.0
            total += pixels.sum(axis=0)
            squares += (pixels**2).sum(axis=0)
            count += len(pixels)
        mean = total / count
        return mean.tolist(), np.sqrt(squares / count - mean**2).tolist()

    def content(self, rows: npt.NDArray[np.int64]) -> str:
        """Hash of the pixels of some rows, part of the key of a GAN trained on them."""
        content = hashlib.sha256(repr(self.dataset.data.shape[1:]).encode())
        for images in self._chunks(rows):
            content.update(images.tobytes())
        return content.hexdigest()[:16]

    def _chunks(self, rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the pixels of rows in chunks that fit into memory."""
        for chunk in np.array_split(rows, max(1, len(rows) // _CHUNK)):
            yield self.dataset.data[chunk]

    def counts(self) -> dict[str, dict[str, float]]:
        """Count the real images of each stage.

        Returns:
            By stage: ``all`` and ``hem`` (images), ``subjects`` (subject numbers), and
            ``effective_all`` and ``effective_hem`` (:func:`leuk.data.splits.effective_patients`).
        """
        counts: dict[str, dict[str, float]] = {}
        for stage in STAGES:
            images = self.stage(stage)
            of_class = {label: images[images["label"] == label] for label in reversed(Label)}
            counts[stage] = {
                **{label.folder: len(own) for label, own in of_class.items()},
                "subjects": int(images["subject"].nunique()),
                **{
                    f"effective_{label.folder}": round(effective_patients(own["patient"]), 2)
                    for label, own in of_class.items()
                },
            }
        return counts

    def stage(self, stage: str) -> pd.DataFrame:
        """Table of one stage's real images; its index holds the rows of the bank."""
        images: pd.DataFrame = self.dataset.index.iloc[getattr(self.split, stage)]
        return images
