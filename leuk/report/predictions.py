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
from leuk.evaluate.vectors import Floats, Integers, as_scores_and_labels
from leuk.store.spreadsheet import restored

BASELINE = "baseline_"
"""Before the name of a baseline, the column of its scores."""

_TEXTS = ("stage", "path", "patient")
"""Columns that stay as they are written: persons 1 and 01 are two."""

_OF_CELLS = (*_TEXTS, "label")
_COLUMNS = (*_OF_CELLS, "score", "calibrated")
_PARTS = ("val", "test")


@dataclass(frozen=True, eq=False)
class StagePredictions:
    """Predictions of one part, in the order of their paths.

    Attributes:
        sample: scores, labels and persons, one each a cell image.
        paths: of the images ``(N,)``.
        baselines: name to scores ``(N,)`` of the same cells.
    """

    sample: Sample
    paths: npt.NDArray[np.str_]
    baselines: Mapping[str, Floats]


@dataclass(frozen=True, eq=False)
class _Cells:
    """Of which cells a part is, whoever judged them.

    Attributes:
        rows: of the file, in the order of the paths.
        paths: as in :class:`StagePredictions`.
        labels: as in :class:`leuk.evaluate.sample.Sample`.
        subjects: likewise.
    """

    rows: Integers
    paths: npt.NDArray[np.str_]
    labels: Integers
    subjects: npt.NDArray[np.str_]


Known = dict[Any, Mapping[str, _Cells]]
"""Parts that were read before; all cells of the grid with a fold and seed have the same."""


def read_predictions(path: Path, known: Known) -> dict[str, StagePredictions]:
    """The ``val`` and ``test`` part of a file of predictions.

    Args:
        path: of the file.
        known: is added to. What hundreds of files have in common is in memory once, and is sent
            once to another process.

    Raises:
        StoreError: missing, damaged, or without one of the parts or columns.
    """
    again = "remove the folder and run the cell again"
    try:
        # A person may be called NA; to look for words that mean nothing takes a quarter longer.
        table = pd.read_csv(
            path,
            usecols=lambda name: _wanted(str(name)),
            dtype=dict.fromkeys(_TEXTS, object),
            low_memory=False,
            na_filter=False,
        )
    except (OSError, ValueError, OverflowError) as error:
        raise StoreError(f"{path}: no readable predictions ({error}); {again}") from error
    if lacking := [name for name in _COLUMNS if name not in table]:
        raise StoreError(f"{path}: no column {', '.join(lacking)}; {again}")
    # Plain arrays from here on: a report reads hundreds of these tables.
    columns = {str(name): table[name].to_numpy() for name in table}
    if any((column == "").any() for column in columns.values() if column.dtype == object):
        raise StoreError(f"{path}: values are missing; {again}")
    key = tuple(tuple(columns[name].tolist()) for name in _OF_CELLS)
    try:
        if key not in known:
            known[key] = _parts(columns)
        return {name: _part(columns, cells) for name, cells in known[key].items()}
    except (ValueError, OverflowError) as error:
        raise StoreError(f"{path}: {error}; {again}") from error


def _wanted(column: str) -> bool:
    return column in _COLUMNS or column.startswith(BASELINE)


def _parts(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, _Cells]:
    order = np.argsort(columns["path"], kind="stable")
    found = {}
    for name in _PARTS:
        rows = order[columns["stage"][order] == name]
        if not len(rows):
            raise ValueError(f"no line of the {name} part")
        paths = np.array([restored(path) for path in columns["path"][rows]])
        labels, subjects = columns["label"][rows], columns["patient"][rows]
        found[name] = _Cells(rows, paths, labels.astype(np.int64), subjects.astype(str))
    return found


def _part(columns: Mapping[str, npt.NDArray[Any]], cells: _Cells) -> StagePredictions:
    scores, calibrated = (
        columns[name][cells.rows].astype(np.float64) for name in ("score", "calibrated")
    )
    baselines = {
        name.removeprefix(BASELINE): as_scores_and_labels(values[cells.rows], cells.labels)[0]
        for name, values in columns.items()
        if name.startswith(BASELINE)
    }
    sample = Sample(scores, cells.labels, cells.subjects, calibrated)
    return StagePredictions(sample, cells.paths, baselines)
