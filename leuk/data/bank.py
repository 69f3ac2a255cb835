"""Decoded images with a common row numbering, and batches gathered from them.

A row number identifies the same image from the loader to the saved predictions.
"""

import mmap
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Batch(TypedDict):
    """Input of a Lightning module's step."""

    images: Tensor
    """``float32 (B, 3, R, R)`` in [0, 1], channels-last in memory."""
    labels: Tensor
    """``int64 (B,)``, see :class:`leuk.data.labels.Label`."""
    rows: Tensor
    """``int64 (B,)``, rows of the bank."""


class PixelBank:
    """Several ``uint8 (N, R, R, 3)`` arrays with a common row numbering.

    The arrays are not copied and can be memory maps; :meth:`to` copies all of them to a device with
    enough memory, where gathering then needs no transfer.
    """

    def __init__(self, arrays: Sequence[npt.NDArray[np.uint8]], labels: npt.NDArray[np.int64]):
        self.arrays = list(arrays)
        self.tensors = [torch.from_numpy(array) for array in arrays]
        self.labels = torch.tensor(labels)
        self.starts = np.cumsum([0, *(len(array) for array in arrays)])
        if self.starts[-1] != len(labels):
            raise ValueError(f"{self.starts[-1]} images but {len(labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle memory-mapped arrays by file name instead of content, for other processes."""
        arrays = [_file_reference(array) for array in self.arrays]
        return {"arrays": arrays, "labels": self.labels.numpy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = [
            np.memmap(**array) if isinstance(array, dict) else array for array in state["arrays"]
        ]
        self.__init__(arrays, state["labels"])  # type: ignore[misc]

    def to(self, device: torch.device) -> "PixelBank":
        """Return a copy on ``device`` if it fits into half of the free memory, otherwise self."""
        size = sum(tensor.numel() for tensor in self.tensors)
        if device.type != "cuda" or size > torch.cuda.mem_get_info(device)[0] // 2:
            return self
        moved = object.__new__(PixelBank)
        moved.arrays = self.arrays
        moved.tensors = [torch.cat([tensor.to(device) for tensor in self.tensors])]
        moved.labels = self.labels.to(device)
        moved.starts = self.starts[[0, -1]]
        return moved

    def gather(self, rows: Tensor, device: torch.device) -> Batch:
        """Gather the rows ``(B,)`` as a batch on ``device``."""
        local = rows.to(self.labels.device, non_blocking=True)
        pixels = self._pixels(local).to(device, non_blocking=True)
        images = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)
        return Batch(
            images=images,
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
    return {
        "filename": array.filename,
        "dtype": array.dtype,
        "mode": array.mode,
        "offset": array.offset,
        "shape": array.shape,
    }
