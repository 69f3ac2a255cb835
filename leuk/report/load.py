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
from leuk.runs.record import FILE, OF_AUGMENTATION, Record, RunId, read_records, setting_texts
from leuk.runs.state import LOCK
from leuk.store import file_in, restored

TABLE = "predictions.csv.xz"
"""Predictions of all runs of a sweep in one file, with a column ``run`` for their folder."""

BASELINE = "baseline_"
"""Prefix of the columns with scores of baselines."""

# Columns read as text, since patients 1 and 01 differ.
_TEXTS = ("run", "stage", "path", "patient")
_COLUMNS = ("stage", "path", "patient", "label", "score", "calibrated")
_AGAIN = "remove the folder and start the run again"
_KINDS = ("none", "control", "gan")

_LARGEST = 2**30
"""Bytes of :data:`TABLE` after decompression, so that a small file cannot fill the memory."""


@dataclass(frozen=True, eq=False)
class StagePredictions:
    """Scores, paths ``(N,)`` and scores of baselines of the images of a stage, sorted by path."""

    sample: Sample
    paths: npt.NDArray[Any]
    baselines: Mapping[str, Floats]

    def with_scores(self, scores: Floats, calibrated: Floats | None) -> "StagePredictions":
        """Return other scores ``(N,)`` of the same images."""
        return replace(self, sample=replace(self.sample, scores=scores, calibrated=calibrated))


@dataclass(frozen=True, eq=False)
class Run:
    """Complete run with its predictions."""

    id: RunId
    val: StagePredictions
    test: StagePredictions
    thresholds: Mapping[str, float]  # default (0.5), and youden and sensitivity95, chosen on val

    @property
    def key(self) -> tuple[int, int]:
        """Seed and fold, by which runs of two configurations match."""
        return self.id.seed, self.id.fold


@dataclass(frozen=True, eq=False)
class Configuration:
    """Runs that differ only in seed and fold: one row of a table."""

    run: RunId  # represents all runs: see RunId.configuration
    records: tuple[Record, ...]  # of all runs, complete or not
    runs: tuple[Run, ...]  # the complete runs with readable predictions
    name: str = ""  # in tables; the title of the run if empty

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
    def pooled(self) -> Sample:
        """Test images of all runs, whose scores are of several models and cannot be ranked."""
        samples = [run.test.sample for run in self.runs]
        calibrated = [one.calibrated for one in samples if one.calibrated is not None]
        return Sample(
            np.concatenate([one.scores for one in samples]),
            np.concatenate([one.labels for one in samples]),
            np.concatenate([one.subjects for one in samples]),
            np.concatenate(calibrated) if len(calibrated) == len(samples) else None,
        )


@dataclass(frozen=True, eq=False)
class Results:
    """Results of a sweep; see :func:`row_names` for ``shared``."""

    configurations: tuple[Configuration, ...]  # in the order of the tables
    problems: tuple[str, ...]  # missing and unreadable results, a sentence each
    shared: tuple[str, ...]  # settings that names omit, a text each

    @property
    def records(self) -> list[Record]:
        """All readable records, in the order of the configurations."""
        return [record for configuration in self.configurations for record in configuration.records]


class NoRecordsError(StoreError):
    """No readable record in the folder ``sweep``; ``problems`` are the unreadable ones."""

    def __init__(self, sweep: Path, problems: Sequence[str]) -> None:
        message = f"{sweep}: no records; run leuk train with name={sweep.name} first"
        super().__init__("\n".join([message, *problems]))
        self.problems = tuple(problems)


def read_results(sweep: Path) -> Results:
    """Read every record in the folder of a sweep and the predictions of the complete ones.

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
    together: dict[Any, pd.DataFrame] = {}
    if (sweep / TABLE).is_file():
        together = dict(list(read_predictions(sweep, TABLE).groupby("run")))
    found: dict[RunId, tuple[list[Record], list[Run]]] = {}
    for record in records:
        own, runs = found.setdefault(record.run.configuration, ([], []))
        own.append(record)
        if record.status == "complete":
            try:
                runs.append(_run_of(sweep, record, together.get(record.run.folder)))
            except StoreError as error:
                problems.append(str(error))
    names, shared = row_names(sorted(found, key=sort_key))
    configurations = []
    for run, name in names.items():
        own, runs = found[run]
        configurations.append(Configuration(run, tuple(own), tuple(runs), name))
    problems += _missing(configurations)
    return Results(tuple(configurations), tuple(problems), shared)


def _run_of(sweep: Path, record: Record, table: pd.DataFrame | None) -> Run:
    """Run with its rows of the table of all runs, or else with the predictions in its folder."""
    path = sweep / TABLE
    if table is None:
        folder, name = sweep / record.run.folder, record.predictions or "predictions.csv"
        path, table = folder / name, read_predictions(folder, name)
    elif "calibrated" not in table:  # the table omits what follows from the record
        temperature = record.calibration["temperature"]
        scores = apply_temperature(table["score"].to_numpy(), temperature)
        table = table.assign(calibrated=scores)
    stages = stages_of(table, path)
    for stage, predicted in stages.items():
        counts = record.data.get("counts", {}).get(stage, {})
        expected = counts.get("all", 0) + counts.get("hem", 0)
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


def read_predictions(folder: Path, name: str) -> pd.DataFrame:
    """Read a file of predictions: paths, patients, labels, scores, and those of baselines.

    Raises:
        StoreError: the file is missing or damaged, or lacks values.
    """
    path = folder / name
    try:
        source: Path | io.BytesIO = file_in(folder, name)
        if name == TABLE:
            with lzma.open(path) as file:
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
    """Predictions of the stages ``val`` and ``test`` in a table from the file ``where``.

    Raises:
        StoreError: the table lacks a column or a stage, or a value is out of range.
    """
    if lacking := [name for name in _COLUMNS if name not in table]:
        raise StoreError(f"{where}: no column {', '.join(lacking)}; {_AGAIN}")
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


def _missing(configurations: Iterable[Configuration]) -> list[str]:
    """Problems of configurations that lack seeds or folds of others with the same split."""
    # Three of three folds lack no fourth.
    runs = {
        one: (
            (one.run.split_name, one.run.settings.get("split.n_folds")),
            {(record.run.seed, record.run.fold) for record in one.records},
        )
        for one in configurations
    }
    of_split: dict[object, set[tuple[int, int]]] = defaultdict(set)
    for split, keys in runs.values():
        of_split[split] |= keys
    problems = []
    for one, (split, keys) in runs.items():
        if missing := sorted(of_split[split] - keys):
            named = ", ".join(f"seed {seed} fold {fold}" for seed, fold in missing)
            problems.append(f"{one.title}: lacks runs that other configurations have: {named}")
    return problems


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
    for split in splits:
        texts = {run: setting_texts(run.settings) for run in runs if run.split_name == split}
        common = set.intersection(*(set(own.values()) for own in texts.values()))
        shared.append(": ".join(filter(None, (split, ", ".join(sorted(common))))))
        for augmentation in dict.fromkeys(run.augmentation for run in texts):
            alike = [run for run in texts if run.augmentation == augmentation]
            of_augmentation = (
                {text for key, text in texts[run].items() if key.startswith(OF_AUGMENTATION)}
                for run in alike
            )
            if own := set.intersection(*of_augmentation) - common:
                shared.append(f"{split}, {augmentation}: {', '.join(sorted(own))}")
            for run in alike:
                kept = sorted(set(texts[run].values()) - common - own)
                names[run] = "-".join([run.model, augmentation, *([] if alone else [split]), *kept])
    return names, tuple(shared)
