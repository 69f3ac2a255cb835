"""What every figure takes: one score and one label a cell, checked in one place."""

from typing import TYPE_CHECKING, Any, Union

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    # A report of figures needs no torch, which takes seconds to load.
    from torch import Tensor

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

Images = npt.NDArray[np.uint8]
"""``uint8 (N, R, R, 3)`` RGB."""

Vector = Union[npt.NDArray[Any], "Tensor"]
"""One number a cell, as an array or as a tensor on the CPU."""


def as_scores_and_labels(scores: Vector, labels: Vector) -> tuple[Floats, Integers]:
    """Both as arrays ``(N,)``.

    Raises:
        ValueError: scores outside [0, 1], other lengths, or only one class.
    """
    # Columns of a table may be read-only, of which torch warns.
    checked = np.require(np.asarray(scores), np.float64, "W")
    truth = np.require(np.asarray(labels), np.int64, "W")
    if checked.ndim != 1 or checked.shape != truth.shape:
        raise ValueError(f"scores {checked.shape} and labels {truth.shape} must be two columns")
    if not ((checked >= 0) & (checked <= 1)).all():
        raise ValueError("scores must lie in [0, 1]; NaN does not")
    found = sorted(set(truth.tolist()))
    if found != [0, 1]:
        raise ValueError(f"both classes are needed, found labels {found}")
    return checked, truth
