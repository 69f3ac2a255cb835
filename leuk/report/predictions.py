"""Files of predictions, read without trust in what they hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from leuk.errors import StoreError
from leuk.evaluate.sample import Sample
from leuk.evaluate.vectors import Floats, as_scores_and_labels
from leuk.store.spreadsheet import restored

BASELINE = "baseline_"
"""Before the name of a baseline, the column of its scores."""

_COLUMNS = ("part", "path", "group", "label", "score", "calibrated")
_PARTS = ("val", "test")


@dataclass(frozen=True, eq=False)
class Part:
    """Predictions of one part, in the order of their paths.

    Attributes:
        sample: scores, labels and persons, one each a cell image.
        paths: of the images ``(N,)``.
        baselines: name to scores ``(N,)`` of the same cells.
    """

    sample: Sample
    paths: npt.NDArray[np.str_]
    baselines: Mapping[str, Floats]


def read_predictions(path: Path) -> dict[str, Part]:
    """The ``val`` and ``test`` part of a file of predictions.

    Raises:
        StoreError: missing, damaged, or without one of the parts or columns.
    """
    again = "remove the folder and run the cell again"
    try:
        # A person may be called NA; to look for words that mean nothing takes a quarter longer.
        table = pd.read_csv(
            path, usecols=lambda name: _wanted(str(name)), low_memory=False, na_filter=False
        )
    except (OSError, ValueError, OverflowError) as error:
        raise StoreError(f"{path}: no readable predictions ({error}); {again}") from error
    if lacking := [name for name in _COLUMNS if name not in table]:
        raise StoreError(f"{path}: no column {', '.join(lacking)}; {again}")
    # Plain arrays from here on: a report reads hundreds of these tables.
    columns = {str(name): table[name].to_numpy() for name in table}
    if any((column == "").any() for column in columns.values() if column.dtype == object):
        raise StoreError(f"{path}: values are missing; {again}")
    order = np.argsort(columns["path"], kind="stable")
    rows = {name: order[columns["part"][order] == name] for name in _PARTS}
    for name in _PARTS:
        if not len(rows[name]):
            raise StoreError(f"{path}: no line of the {name} part; {again}")
    try:
        return {name: _part(columns, rows[name]) for name in _PARTS}
    except (ValueError, OverflowError) as error:
        raise StoreError(f"{path}: {error}; {again}") from error


def _wanted(column: str) -> bool:
    return column in _COLUMNS or column.startswith(BASELINE)


def _part(columns: Mapping[str, npt.NDArray[Any]], rows: npt.NDArray[np.int64]) -> Part:
    sample = Sample(
        columns["score"][rows].astype(np.float64),
        columns["label"][rows].astype(np.int64),
        columns["group"][rows].astype(str),
        columns["calibrated"][rows].astype(np.float64),
    )
    baselines = {
        name.removeprefix(BASELINE): as_scores_and_labels(values[rows], sample.labels)[0]
        for name, values in columns.items()
        if name.startswith(BASELINE)
    }
    paths = np.array([restored(str(path)) for path in columns["path"][rows]])
    return Part(sample, paths, baselines)
