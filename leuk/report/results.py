"""Results of a sweep: records and predictions, with the runs of a configuration together.

The first step of every report: tables, comparisons and figures are computed from
:class:`Results`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from leuk.errors import StoreError
from leuk.report.naming import row_names, sort_key
from leuk.report.predictions import Known, StagePredictions, read_predictions
from leuk.report.workers import begun
from leuk.runs.record import FILE, Record, RunId, folders_of, read_own
from leuk.runs.state import LOCK
from leuk.store import file_in

Key = tuple[int, int]
"""Seed and fold of a run."""


@dataclass(frozen=True, eq=False)
class Run:
    """Complete run with its predictions.

    Attributes:
        id: model, augmentation, split, seed and settings.
        val: predictions on validation images, which chose the thresholds.
        test: predictions on test images, which give the metrics.
        thresholds: ``default`` (0.5), and ``youden`` and ``sensitivity95``, chosen on ``val``.
    """

    id: RunId
    val: StagePredictions
    test: StagePredictions
    thresholds: Mapping[str, float]

    @property
    def key(self) -> Key:
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
        """True if no fold has runs of several seeds."""
        return len(self.first_seed) == len(self.runs)


@dataclass(frozen=True, eq=False)
class Results:
    """Results of a sweep.

    Attributes:
        configurations: configurations in the order of the tables.
        problems: missing, incomplete or unreadable results, one sentence each.
        shared: each split, with the settings that all its configurations share and their names
            omit.
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


def read_results(sweep: Path, workers: int = 1) -> Results:
    """Read every record of a sweep and the predictions of the complete ones.

    Args:
        sweep: folder of the sweep.
        workers: number of processes.

    Raises:
        NoRecordsError: no readable record in the folder.
    """
    with reading(sweep, workers) as results:
        return results()


@contextmanager
def reading(sweep: Path, workers: int) -> Iterator[Callable[[], Results]]:
    """Start :func:`read_results` in the background; yield a function that waits for the results."""
    known: Known = {}
    with begun(lambda folder: _read(folder, known), folders_of(sweep), workers) as found:
        yield lambda: _combine(sweep, found())


_Found = tuple[Record | None, Run | None, str]
"""A run's record, its predictions if it is complete, and the problem if one is missing."""


def _combine(sweep: Path, found: Sequence[_Found]) -> Results:
    problems = [problem for record, _, problem in found if not record]
    problems += _without_record(sweep)
    read = [(record, run, problem) for record, run, problem in found if record]
    if not read:
        raise NoRecordsError(sweep, problems)
    read.sort(key=lambda one: (one[0].run.title, one[0].run.seed, one[0].run.fold))
    problems += [problem for _, _, problem in read if problem]
    runs = {run.id: run for _, run, _ in read if run}
    by_configuration: dict[RunId, list[Record]] = defaultdict(list)
    for record, *_ in read:
        by_configuration[record.run.configuration].append(record)
    configurations = [
        Configuration(run, tuple(them), tuple(runs[one.run] for one in them if one.run in runs))
        for run, them in by_configuration.items()
    ]
    configurations.sort(key=lambda configuration: sort_key(configuration.run))
    names, shared = row_names([configuration.run for configuration in configurations])
    named = [
        replace(configuration, name=names[configuration.run]) for configuration in configurations
    ]
    return Results(tuple(named), (*problems, *_holes(named)), shared)


def _without_record(sweep: Path) -> list[str]:
    """Problems of run folders that have no record."""
    return [
        f"{folder.name}: no {FILE}; the run was stopped before it could write one"
        for folder in sorted(sweep.iterdir())
        if (folder / LOCK).exists() and not (folder / FILE).exists()
    ]


def _read(folder: Path, known: Known) -> _Found:
    record = None
    try:
        record = read_own(folder)
        run = _read_run(folder, record, known) if record.status == "complete" else None
        return record, run, ""
    except StoreError as error:
        return record, None, str(error)


def _read_run(folder: Path, record: Record, known: Known) -> Run:
    name = record.predictions or "predictions.csv"
    try:
        path = file_in(folder, name)
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{folder / name}: no readable predictions ({error}); remove the folder and start the "
            "run again"
        ) from error
    stages = read_predictions(path, known)
    counts = record.data.get("counts", {})
    for name, stage in stages.items():
        expected = sum(counts.get(name, {}).get(label, 0) for label in ("all", "hem"))
        if expected and expected != len(stage.paths):
            raise StoreError(
                f"{path}: {len(stage.paths)} rows of stage {name}, but its record counts "
                f"{expected}; remove the folder and start the run again"
            )
    chosen = {
        name: threshold["value"]
        for name, threshold in record.metrics.get("thresholds", {}).items()
        if threshold["value"] is not None
    }
    return Run(record.run, stages["val"], stages["test"], chosen)


def _holes(configurations: Sequence[Configuration]) -> list[str]:
    """Problems of configurations that lack seeds or folds of their split."""
    everywhere: dict[tuple[str, object], set[Key]] = defaultdict(set)
    for configuration in configurations:
        everywhere[_split(configuration.run)] |= _keys(configuration.records)
    lacking = []
    for configuration in configurations:
        missing = sorted(everywhere[_split(configuration.run)] - _keys(configuration.records))
        if missing:
            named = ", ".join(f"seed {seed} fold {fold}" for seed, fold in missing)
            lacking.append(
                f"{configuration.title}: lacks runs that other configurations have: {named}"
            )
    return lacking


def _split(run: RunId) -> tuple[str, object]:
    """Split and number of folds: three of three folds lack no fourth."""
    return run.split_name, run.settings.get("split.n_folds")


def _keys(records: Iterable[Record]) -> set[Key]:
    return {(record.run.seed, record.run.fold) for record in records}


def matching(one: Configuration, other: Configuration) -> list[tuple[Run, Run]]:
    """Pairs of runs with the same seed and fold and the same test images, sorted."""
    theirs = {run.key: run for run in other.runs}
    return [
        (run, theirs[run.key])
        for run in sorted(one.runs, key=lambda run: run.key)
        if run.key in theirs and np.array_equal(run.test.paths, theirs[run.key].test.paths)
    ]
