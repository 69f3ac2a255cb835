"""Records and predictions of a sweep, grouped into configurations: the first step of every report.

A sweep has a file of predictions in the folder of each run, or one compressed table of all runs
(:data:`TABLE`), as published sweeps do.
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
from leuk.metrics.calibration import apply_temperature
from leuk.metrics.classification import Sample
from leuk.runs.record import (
    FILE,
    OF_AUGMENTATION,
    Record,
    RunId,
    read_records,
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
    def first_seed(self) -> "Configuration":
        """One run per fold, with the lowest seed: every test image once."""
        chosen: dict[int, Run] = {}
        for run in sorted(self.runs, key=lambda run: run.key):
            chosen.setdefault(run.id.fold, run)
        return replace(self, runs=tuple(chosen.values()))

    @property
    def fitted_once(self) -> bool:
        """True if every fold has a single seed, so that intervals lack training variation."""
        return len(self.first_seed.runs) == len(self.runs)

    @property
    def pooled(self) -> Sample:
        """Test images of all runs, whose scores are of several models and cannot be ranked."""
        samples = [run.test.sample for run in self.runs]
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
    """

    configurations: tuple[Configuration, ...]
    problems: tuple[str, ...]
    shared: tuple[str, ...]

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
    records, problems = read_records(sweep)
    problems += [
        f"{lock.parent.name}: no {FILE}; the run was stopped before it could write one"
        for lock in sorted(sweep.glob(f"*/{LOCK}"))
        if not (lock.parent / FILE).exists()
    ]
    if not records:
        raise NoRecordsError(sweep, problems)
    records.sort(key=lambda record: (record.run.title, record.run.seed, record.run.fold))
    together = dict(list(_read(sweep / TABLE).groupby("run"))) if (sweep / TABLE).is_file() else {}
    runs: dict[RunId, list[Run]] = defaultdict(list)
    found: dict[RunId, list[Record]] = defaultdict(list)
    for record in records:
        found[record.run.configuration].append(record)
        if record.status == "complete":
            try:
                runs[record.run.configuration].append(_run_of(sweep, record, together))
            except StoreError as error:
                problems.append(str(error))
    names, shared = row_names(sorted(found, key=sort_key))
    configurations = [
        Configuration(one, tuple(found[one]), tuple(runs[one]), name) for one, name in names.items()
    ]
    return Results(tuple(configurations), (*problems, *_holes(configurations)), shared)


def _run_of(sweep: Path, record: Record, together: Mapping[Any, pd.DataFrame]) -> Run:
    """Read the predictions of a run: from its folder unless they are in the table of all runs."""
    if (table := together.get(record.run.folder)) is None:
        folder, name = sweep / record.run.folder, record.predictions or "predictions.csv"
        try:
            path = file_in(folder, name)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{folder / name}: no readable predictions ({error}); {_AGAIN}"
            ) from error
        table = read_predictions(path)
    else:
        path = sweep / TABLE
        if "calibrated" not in table:  # it omits what follows from the record
            temperature = record.calibration["temperature"]
            scores = apply_temperature(table["score"].to_numpy(), temperature)
            table = table.assign(calibrated=scores)
    stages = stages_of(table, path)
    counts = record.data.get("counts", {})
    for stage, predicted in stages.items():
        expected = sum(counts.get(stage, {}).get(label, 0) for label in ("all", "hem"))
        if expected and expected != len(predicted.paths):
            raise StoreError(
                f"{path}: {len(predicted.paths)} rows of stage {stage}, but its record counts "
                f"{expected}; {_AGAIN}"
            )
    chosen = {
        name: threshold["value"]
        for name, threshold in record.metrics.get("thresholds", {}).items()
        if threshold["value"] is not None
    }
    return Run(record.run, stages["val"], stages["test"], chosen)


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
        source: Path | io.BytesIO = path
        if path.name == TABLE:
            with lzma.open(file_in(path.parent, path.name)) as file:
                content = file.read(_LARGEST + 1)
            if len(content) > _LARGEST:
                raise ValueError(f"more than {_LARGEST:,} bytes")
            source = io.BytesIO(content)
        # A patient may be called NA.
        table = pd.read_csv(
            source,
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


def stages_of(table: pd.DataFrame, where: object) -> dict[str, StagePredictions]:
    """Predictions of the stages ``val`` and ``test``.

    Args:
        table: predictions as :func:`read_predictions` returns them.
        where: name of their file, for errors.

    Raises:
        StoreError: the table lacks a stage, or a value is out of range.
    """
    stages = {}
    try:
        for stage in ("val", "test"):
            rows = table[table["stage"] == stage]
            if rows.empty:
                raise ValueError(f"no row of stage {stage}")
            rows = rows.iloc[np.argsort(rows["path"].to_numpy(), kind="stable")]
            labels = rows["label"].to_numpy().astype(np.int64)
            scores, calibrated = (
                rows[key].to_numpy().astype(float) for key in ("score", "calibrated")
            )
            patients = rows["patient"].to_numpy().astype(str)
            baselines = {
                key.removeprefix(BASELINE): as_scores_and_labels(rows[key].to_numpy(), labels)[0]
                for key in map(str, rows)
                if key.startswith(BASELINE)
            }
            sample = Sample(scores, labels, patients, calibrated)
            stages[stage] = StagePredictions(sample, rows["path"].to_numpy(), baselines)
    except (ValueError, OverflowError) as error:
        raise StoreError(f"{where}: {error}; {_AGAIN}") from error
    return stages


def _holes(configurations: Sequence[Configuration]) -> list[str]:
    """Problems of configurations that lack seeds or folds of their split."""
    # Three of three folds lack no fourth.
    splits = [(one.run.split_name, one.run.settings.get("split.n_folds")) for one in configurations]
    present = [
        {(record.run.seed, record.run.fold) for record in one.records} for one in configurations
    ]
    everywhere: dict[tuple[str, object], set[tuple[int, int]]] = defaultdict(set)
    for split, keys in zip(splits, present, strict=True):
        everywhere[split] |= keys
    lacking = []
    for one, split, keys in zip(configurations, splits, present, strict=True):
        if missing := sorted(everywhere[split] - keys):
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
    names = dict.fromkeys(runs, "")
    shared = []

    def omit(name: str, settings: set[str]) -> None:
        shared.append(f"{name}: {', '.join(sorted(settings))}" if settings else name)

    for split in splits:
        texts = {run: setting_texts(run.settings) for run in runs if run.split_name == split}
        common = set.intersection(*(set(own.values()) for own in texts.values()))
        omit(split, common)
        for augmentation in dict.fromkeys(run.augmentation for run in texts):
            alike = [run for run in texts if run.augmentation == augmentation]
            of_augmentation = (
                {text for key, text in texts[run].items() if key.startswith(OF_AUGMENTATION)}
                for run in alike
            )
            if own := set.intersection(*of_augmentation) - common:
                omit(f"{split}, {augmentation}", own)
            for run in alike:
                kept = sorted(text for text in texts[run].values() if text not in common | own)
                names[run] = "-".join([run.model, augmentation, *([] if alone else [split]), *kept])
    return names, tuple(shared)
