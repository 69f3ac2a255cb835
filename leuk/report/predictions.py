"""Files of predictions, read with checks of their content."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from leuk.errors import StoreError
from leuk.metrics.arrays import Floats, Integers, as_scores_and_labels
from leuk.metrics.bootstrap import Sample
from leuk.store import restored

BASELINE = "baseline_"
"""Prefix of the columns with scores of baselines."""

_TEXTS = ("stage", "path", "patient")
"""Columns read as text, since patients 1 and 01 differ."""

_IDENTITY = (*_TEXTS, "label")
_COLUMNS = (*_IDENTITY, "score", "calibrated")
_STAGES = ("val", "test")


@dataclass(frozen=True, eq=False)
class StagePredictions:
    """Predictions of one stage, sorted by path.

    Attributes:
        sample: score, label and patient of each image.
        paths: paths of the images ``(N,)``.
        baselines: scores ``(N,)`` of the same images by name of the baseline.
    """

    sample: Sample
    paths: npt.NDArray[np.str_]
    baselines: Mapping[str, Floats]


@dataclass(frozen=True, eq=False)
class _Images:
    """The images of a stage, independent of the model.

    Attributes:
        rows: row numbers ``(N,)`` in the file, sorted by path.
        paths: paths ``(N,)`` of the images.
        labels: labels ``(N,)``, as in :class:`leuk.metrics.bootstrap.Sample`.
        subjects: patients ``(N,)``, as in :class:`leuk.metrics.bootstrap.Sample`.
    """

    rows: Integers
    paths: npt.NDArray[np.str_]
    labels: Integers
    subjects: npt.NDArray[np.str_]


Known = dict[Any, Mapping[str, _Images]]
"""Images by stage of the files read before; all runs of a fold and seed have the same images."""


def read_predictions(path: Path, known: Known) -> dict[str, StagePredictions]:
    """Predictions of the stages ``val`` and ``test`` in a file.

    Args:
        path: the file.
        known: images of files read before, extended by those of this file. Images that hundreds of
            files share are kept in memory once and sent to another process once.

    Raises:
        StoreError: the file is missing or damaged, or lacks a stage or column.
    """
    again = "remove the folder and start the run again"
    try:
        # A patient may be called NA, and a search for missing values takes 25 % longer.
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
    # Plain arrays are faster, and a report reads hundreds of these tables.
    columns = {str(name): table[name].to_numpy() for name in table}
    if any((column == "").any() for column in columns.values() if column.dtype == object):
        raise StoreError(f"{path}: values are missing; {again}")
    key = tuple(tuple(columns[name].tolist()) for name in _IDENTITY)
    try:
        if key not in known:
            known[key] = _stages(columns)
        return {name: _stage(columns, images) for name, images in known[key].items()}
    except (ValueError, OverflowError) as error:
        raise StoreError(f"{path}: {error}; {again}") from error


def _wanted(column: str) -> bool:
    return column in _COLUMNS or column.startswith(BASELINE)


def _stages(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, _Images]:
    order = np.argsort(columns["path"], kind="stable")
    found = {}
    for name in _STAGES:
        rows = order[columns["stage"][order] == name]
        if not len(rows):
            raise ValueError(f"no row of stage {name}")
        paths = np.array([restored(path) for path in columns["path"][rows]])
        labels, subjects = columns["label"][rows], columns["patient"][rows]
        found[name] = _Images(rows, paths, labels.astype(np.int64), subjects.astype(str))
    return found


def _stage(columns: Mapping[str, npt.NDArray[Any]], images: _Images) -> StagePredictions:
    scores, calibrated = (
        columns[name][images.rows].astype(np.float64) for name in ("score", "calibrated")
    )
    baselines = {
        name.removeprefix(BASELINE): as_scores_and_labels(values[images.rows], images.labels)[0]
        for name, values in columns.items()
        if name.startswith(BASELINE)
    }
    sample = Sample(scores, images.labels, images.subjects, calibrated)
    return StagePredictions(sample, images.paths, baselines)
