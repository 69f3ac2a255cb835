"""Records and predictions of a sweep: one table of predictions, and the runs of a configuration.

The first step of every report. A sweep has a file of predictions in the folder of each run, or one
compressed table of all runs (:data:`TABLE`), as published sweeps do.
"""

import io
import lzma
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import is_numeric_dtype

from leuk.errors import StoreError
from leuk.metrics.arrays import Floats, as_scores_and_labels
from leuk.metrics.bootstrap import Sample
from leuk.metrics.calibration import apply_temperature
from leuk.runs.record import (
    FILE,
    OF_AUGMENTATION,
    Record,
    RunId,
    folders_of,
    read_own,
    setting_texts,
)
from leuk.runs.state import LOCK
from leuk.store import file_in, restored

TABLE = "predictions.csv.xz"
"""Predictions of all runs of a sweep in one file, with a column ``run`` for their folder."""

BASELINE = "baseline_"
"""Prefix of the columns with scores of baselines."""

_TEXTS = ("run", "stage", "path", "patient")
"""Columns read as text, since patients 1 and 01 differ."""

_COLUMNS = ("stage", "path", "patient", "label", "score", "calibrated")
_AGAIN = "remove the folder and start the run again"
_KINDS = ("none", "control", "gan")

_LARGEST = 2**30
"""Bytes of :data:`TABLE` after decompression, so that a small file cannot fill the memory."""


@dataclass(frozen=True, eq=False)
class StagePredictions:
    """Predictions of one stage, sorted by path.

    Attributes:
        sample: score, label and patient of each image.
        paths: paths of the images ``(N,)``.
        baselines: scores ``(N,)`` of the same images by name of the baseline.
    """

    sample: Sample
    paths: npt.NDArray[Any]
    baselines: Mapping[str, Floats]

    def with_scores(self, scores: Floats, calibrated: Floats | None) -> "StagePredictions":
        """Return other scores ``(N,)`` of the same images."""
        return replace(self, sample=replace(self.sample, scores=scores, calibrated=calibrated))


@dataclass(frozen=True, eq=False)
class Run:
    """Complete run with its predictions.

    Attributes:
        id: identity of the run.
        val: predictions on validation images, which chose the thresholds.
        test: predictions on test images, which give the metrics.
        thresholds: ``default`` (0.5), and ``youden`` and ``sensitivity95``, chosen on ``val``.
    """

    id: RunId
    val: StagePredictions
    test: StagePredictions
    thresholds: Mapping[str, float]

    @property
    def key(self) -> tuple[int, int]:
        """Seed and fold, by which runs of two configurations match."""
        return self.id.seed, self.id.fold


@dataclass(frozen=True, eq=False)
class Configuration:
    """Runs that differ only in seed and fold: one row of a table.

    Attributes:
        run: id that represents all runs, see :attr:`leuk.runs.record.RunId.configuration`.
        records: records of all runs, complete or not.
        runs: the complete runs with readable predictions.
        name: name in tables; the title of ``run`` if empty.
    """

    run: RunId
    records: tuple[Record, ...]
    runs: tuple[Run, ...]
    name: str = ""

    @property
    def title(self) -> str:
        """Name of the configuration in tables and figures."""
        return self.name or self.run.title

    @property
    def first_seed(self) -> list[Run]:
        """The run with the lowest seed of each fold: every test image once."""
        chosen: dict[int, Run] = {}
        for run in sorted(self.runs, key=lambda run: run.key):
            chosen.setdefault(run.id.fold, run)
        return list(chosen.values())

    @property
    def fitted_once(self) -> bool:
        """True if every fold has a single seed, so that intervals lack training variation."""
        return len(self.first_seed) == len(self.runs)

    @property
    def pooled(self) -> Sample:
        """Test images of all runs, for counting and calibration, not for ranking."""
        return pooled(self.runs)


def pooled(runs: Sequence[Run]) -> Sample:
    """Test images of runs together; the scores come from several models."""
    samples = [run.test.sample for run in runs]
    calibrated = [sample.calibrated for sample in samples if sample.calibrated is not None]
    return Sample(
        np.concatenate([sample.scores for sample in samples]),
        np.concatenate([sample.labels for sample in samples]),
        np.concatenate([sample.subjects for sample in samples]),
        np.concatenate(calibrated) if len(calibrated) == len(samples) else None,
    )


@dataclass(frozen=True, eq=False)
class Results:
    """Results of a sweep.

    Attributes:
        configurations: all configurations, in the order of the tables.
        problems: missing and unreadable results, a sentence each.
        shared: for each split, and each augmentation that has any: a text on the settings that all
            its configurations share and their names omit.
        predictions: ``run``, ``stage``, ``path``, ``patient``, ``label``, ``score``,
            ``calibrated`` and the scores of baselines: a row per image and complete run.
    """

    configurations: tuple[Configuration, ...]
    problems: tuple[str, ...]
    shared: tuple[str, ...]
    predictions: pd.DataFrame

    @property
    def records(self) -> list[Record]:
        """All readable records, in the order of the configurations."""
        return [record for configuration in self.configurations for record in configuration.records]


class NoRecordsError(StoreError):
    """No readable record in the folder of a sweep.

    Args:
        sweep: the folder.
        problems: its missing and unreadable records, one sentence each.
    """

    def __init__(self, sweep: Path, problems: Sequence[str]) -> None:
        message = f"{sweep}: no records; run leuk train with name={sweep.name} first"
        super().__init__("\n".join([message, *problems]))
        self.problems = tuple(problems)


def read_results(sweep: Path) -> Results:
    """Read every record of a sweep and the predictions of the complete ones.

    Args:
        sweep: folder of the sweep.

    Raises:
        NoRecordsError: no readable record in the folder.
    """
    records: list[Record] = []
    problems: list[str] = []
    for folder in folders_of(sweep):
        try:
            records.append(read_own(folder))
        except StoreError as error:
            problems.append(str(error))
    problems += [
        f"{lock.parent.name}: no {FILE}; the run was stopped before it could write one"
        for lock in sorted(sweep.glob(f"*/{LOCK}"))
        if not (lock.parent / FILE).exists()
    ]
    if not records:
        raise NoRecordsError(sweep, problems)
    records.sort(key=lambda record: (record.run.title, record.run.seed, record.run.fold))
    together = _read(sweep / TABLE) if (sweep / TABLE).is_file() else pd.DataFrame({"run": []})
    by_run = dict(list(together.groupby("run", sort=False)))
    runs: dict[RunId, Run] = {}
    tables = {}
    for record in (record for record in records if record.status == "complete"):
        try:
            path = sweep / TABLE
            if (table := by_run.get(record.run.folder)) is None:
                path = _file_of(sweep, record)
                table = read_predictions(path)
            elif "calibrated" not in table:
                table = _calibrated(table, record)
            runs[record.run] = run_of(record, table, path)
            tables[record.run.folder] = table.drop(columns="run", errors="ignore")
        except StoreError as error:
            problems.append(str(error))
    configurations = _grouped(records, runs)
    names, shared = row_names([configuration.run for configuration in configurations])
    named = [replace(one, name=names[one.run]) for one in configurations]
    predictions = pd.concat(tables, names=["run", None]).reset_index(0) if tables else together
    return Results(tuple(named), (*problems, *_holes(named)), shared, predictions)


def _grouped(records: Sequence[Record], runs: Mapping[RunId, Run]) -> list[Configuration]:
    found: dict[RunId, list[Record]] = defaultdict(list)
    for record in records:
        found[record.run.configuration].append(record)
    configurations = [
        Configuration(run, tuple(own), tuple(runs[one.run] for one in own if one.run in runs))
        for run, own in found.items()
    ]
    return sorted(configurations, key=lambda configuration: sort_key(configuration.run))


def _file_of(sweep: Path, record: Record) -> Path:
    """Path of the predictions in the folder of a run."""
    name = record.predictions or "predictions.csv"
    folder = sweep / record.run.folder
    try:
        return file_in(folder, name)
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder / name}: no readable predictions ({error}); {_AGAIN}") from error


def read_predictions(path: Path) -> pd.DataFrame:
    """Read the predictions of a run.

    Returns:
        Columns ``stage``, ``path``, ``patient``, ``label``, ``score``, ``calibrated`` and those of
        baselines.

    Raises:
        StoreError: the file is missing or damaged, or lacks a column or values.
    """
    table = _read(path)
    if lacking := [name for name in _COLUMNS if name not in table]:
        raise StoreError(f"{path}: no column {', '.join(lacking)}; {_AGAIN}")
    return table


def _read(path: Path) -> pd.DataFrame:
    try:
        # A patient may be called NA.
        table = pd.read_csv(
            _decompressed(path) if path.name == TABLE else path,
            usecols=lambda name: name in (*_TEXTS, *_COLUMNS) or str(name).startswith(BASELINE),
            dtype=dict.fromkeys(_TEXTS, object),
            low_memory=False,
            na_filter=False,
        )
    except (OSError, ValueError, OverflowError, EOFError, lzma.LZMAError) as error:
        raise StoreError(f"{path}: no readable predictions ({error}); {_AGAIN}") from error
    if any((table[name] == "").any() for name in table if not is_numeric_dtype(table[name])):
        raise StoreError(f"{path}: values are missing; {_AGAIN}")
    return table.assign(path=table["path"].map(restored)) if "path" in table else table


def _decompressed(path: Path) -> io.BytesIO:
    with lzma.open(file_in(path.parent, path.name)) as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"more than {_LARGEST:,} bytes")
    return io.BytesIO(content)


def _calibrated(table: pd.DataFrame, record: Record) -> pd.DataFrame:
    """Return the rows of a run in :data:`TABLE`, which omits what follows from the record."""
    scores = apply_temperature(table["score"].to_numpy(), record.calibration["temperature"])
    return table.assign(calibrated=scores)


def run_of(record: Record, table: pd.DataFrame, where: object) -> Run:
    """Return a run with its predictions.

    Args:
        record: record of the run.
        table: predictions as :func:`read_predictions` returns them.
        where: name of their file, for errors.

    Raises:
        StoreError: see :func:`stages_of`; or the record counts another number of images.
    """
    stages = stages_of(table, where)
    counts = record.data.get("counts", {})
    for name, stage in stages.items():
        expected = sum(counts.get(name, {}).get(label, 0) for label in ("all", "hem"))
        if expected and expected != len(stage.paths):
            raise StoreError(
                f"{where}: {len(stage.paths)} rows of stage {name}, but its record counts "
                f"{expected}; {_AGAIN}"
            )
    chosen = {
        name: threshold["value"]
        for name, threshold in record.metrics.get("thresholds", {}).items()
        if threshold["value"] is not None
    }
    return Run(record.run, stages["val"], stages["test"], chosen)


def stages_of(table: pd.DataFrame, where: object) -> dict[str, StagePredictions]:
    """Predictions of the stages ``val`` and ``test``.

    Args:
        table: predictions as :func:`read_predictions` returns them.
        where: name of their file, for errors.

    Raises:
        StoreError: the table lacks a stage, or a value is out of range.
    """
    try:
        return {name: _stage(name, table[table["stage"] == name]) for name in ("val", "test")}
    except (ValueError, OverflowError) as error:
        raise StoreError(f"{where}: {error}; {_AGAIN}") from error


def _stage(name: str, table: pd.DataFrame) -> StagePredictions:
    if table.empty:
        raise ValueError(f"no row of stage {name}")
    table = table.iloc[np.argsort(table["path"].to_numpy(), kind="stable")]
    labels = table["label"].to_numpy().astype(np.int64)
    scores, calibrated = (table[key].to_numpy().astype(float) for key in ("score", "calibrated"))
    baselines = {
        key.removeprefix(BASELINE): as_scores_and_labels(table[key].to_numpy(), labels)[0]
        for key in map(str, table)
        if key.startswith(BASELINE)
    }
    sample = Sample(scores, labels, table["patient"].to_numpy().astype(str), calibrated)
    return StagePredictions(sample, table["path"].to_numpy(), baselines)


def _holes(configurations: Sequence[Configuration]) -> list[str]:
    """Problems of configurations that lack seeds or folds of their split."""

    def split(one: Configuration) -> tuple[str, object]:
        # Three of three folds lack no fourth.
        return one.run.split_name, one.run.settings.get("split.n_folds")

    def keys(one: Configuration) -> set[tuple[int, int]]:
        return {(record.run.seed, record.run.fold) for record in one.records}

    everywhere: dict[tuple[str, object], set[tuple[int, int]]] = defaultdict(set)
    for one in configurations:
        everywhere[split(one)] |= keys(one)
    lacking = []
    for one in configurations:
        if missing := sorted(everywhere[split(one)] - keys(one)):
            named = ", ".join(f"seed {seed} fold {fold}" for seed, fold in missing)
            lacking.append(f"{one.title}: lacks runs that other configurations have: {named}")
    return lacking


def matching(one: Configuration, other: Configuration) -> list[tuple[Run, Run]]:
    """Pairs of runs with the same seed and fold and the same test images, sorted."""
    theirs = {run.key: run for run in other.runs}
    return [
        (run, theirs[run.key])
        for run in sorted(one.runs, key=lambda run: run.key)
        if run.key in theirs and np.array_equal(run.test.paths, theirs[run.key].test.paths)
    ]


# --- Names and order of configurations


def sort_key(run: RunId) -> tuple[object, ...]:
    """Sort key of configurations: no augmentation first, then controls, then GANs, by name."""
    bare = tuple(sorted(setting_texts(run.plain.settings).values()))
    order = (run.model, _KINDS.index(run.kind), run.augmentation, run.title)
    return (run.split_name, len(bare), bare, *order)


def augmentations_of(runs: Iterable[RunId]) -> list[str]:
    """Names of the augmentations of runs, each once, in the order of :func:`sort_key`."""
    found = {(_KINDS.index(run.kind), run.augmentation) for run in runs}
    return [name for _, name in sorted(found)]


def unlike(one: RunId, other: RunId) -> int:
    """Count the settings that only one of two runs has, or with another value."""
    keys = one.settings.keys() | other.settings.keys()
    return sum(one.settings.get(key) != other.settings.get(key) for key in keys)


def row_names(runs: Sequence[RunId]) -> tuple[dict[RunId, str], tuple[str, ...]]:
    """Names of configurations without the settings that all share, and these settings.

    Args:
        runs: the id that represents each configuration, see
            :attr:`leuk.runs.record.RunId.configuration`.

    Returns:
        Names by id, ``<model>-<augmentation>[-<split>][-<settings>]``: the split is omitted if it
        is the only one and does not leak, a setting if all configurations of the split have it or
        all of its augmentation do. Then a text on the omitted settings for each split, and for
        each augmentation that has any.
    """
    splits = dict.fromkeys(run.split_name for run in runs)
    alone = len(splits) == 1 and not runs[0].leaky
    names: dict[RunId, str] = {}
    shared = []
    for split in splits:
        texts = {run: setting_texts(run.settings) for run in runs if run.split_name == split}
        common = set.intersection(*(set(own.values()) for own in texts.values()))
        shared.append(_omitted(split, common))
        for augmentation in dict.fromkeys(run.augmentation for run in texts):
            alike = [run for run in texts if run.augmentation == augmentation]
            own = set.intersection(
                *(
                    {text for key, text in texts[run].items() if key.startswith(OF_AUGMENTATION)}
                    for run in alike
                )
            )
            own -= common
            shared += [_omitted(f"{split}, {augmentation}", own)] if own else []
            for run in alike:
                kept = sorted(text for text in texts[run].values() if text not in common | own)
                parts = [run.model, augmentation, *([] if alone else [split]), *kept]
                names[run] = "-".join(parts)
    return names, tuple(shared)


def _omitted(name: str, settings: set[str]) -> str:
    return f"{name}: {', '.join(sorted(settings))}" if settings else name
