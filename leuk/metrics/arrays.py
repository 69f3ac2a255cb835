"""Array types of the metrics, and checks of images, scores and labels."""

from typing import TYPE_CHECKING, Any, Union

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    # A report of metrics needs no torch, which takes seconds to load.
    from torch import Tensor

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

Images = npt.NDArray[np.uint8]
"""``uint8 (N, R, R, 3)`` RGB."""

Vector = Union[npt.NDArray[Any], "Tensor"]
"""One number per image, as an array or as a CPU tensor."""


def check_images(images: Images) -> None:
    """Raise ValueError unless images are ``uint8 (N, R, R, 3)`` with N >= 1.

    Floats are refused, not converted, since a wrong guess of their range would go unnoticed.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        found = getattr(images, "dtype", type(images).__name__)
        raise ValueError(f"images must be a numpy array of uint8 (0 to 255), found {found}")
    if images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(f"images must have the shape (N, R, R, 3), found {images.shape}")
    if images.size == 0:
        raise ValueError(f"no images to measure, found the shape {images.shape}")


def as_scores_and_labels(scores: Vector, labels: Vector) -> tuple[Floats, Integers]:
    """Return scores and labels as arrays ``(N,)``.

    Raises:
        ValueError: scores outside [0, 1], different lengths, or a single class.
    """
    # torch warns of read-only or strided arrays, such as columns of a table.
    checked = np.require(np.asarray(scores), np.float64, ["C", "W"])
    truth = np.require(np.asarray(labels), np.int64, ["C", "W"])
    if checked.ndim != 1 or checked.shape != truth.shape:
        raise ValueError(
            f"scores {checked.shape} and labels {truth.shape} must be 1-D, of equal length"
        )
    if not ((checked >= 0) & (checked <= 1)).all():
        raise ValueError("scores must be in [0, 1], not NaN")
    healthy, leukemic = truth == 0, truth == 1
    if not (healthy.any() and leukemic.any() and (healthy | leukemic).all()):
        found = sorted(set(truth.tolist()))
        raise ValueError(f"both classes are needed, found labels {found}")
    return checked, truth
