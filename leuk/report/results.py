"""What a sweep left: records and predictions, cells that differ in seed and fold alone together.

The first step of every report: tables, comparisons and figures are made of :class:`Results`.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from leuk.errors import StoreError
from leuk.grid.record import FILE, Record, folders_of, read_own
from leuk.grid.run_id import RunId
from leuk.report.naming import in_order, row_names
from leuk.report.predictions import Known, StagePredictions, read_predictions
from leuk.report.workers import begun
from leuk.store.foreign import file_in

Key = tuple[int, int]
"""Seed and fold of a run."""

_CELL_FOLDER = re.compile(r".+-s\d+(-.*)?")


@dataclass(frozen=True, eq=False)
class Run:
    """One complete cell of the grid with its predictions.

    Attributes:
        cell: which.
        val: what its thresholds were chosen on.
        test: what its figures are about.
        thresholds: ``default`` (0.5), and ``youden`` and ``sensitivity95``, chosen on ``val``.
    """

    id: RunId
    val: StagePredictions
    test: StagePredictions
    thresholds: Mapping[str, float]

    @property
    def key(self) -> Key:
        """Seed and fold, by which runs of two groups match."""
        return self.id.seed, self.id.fold


@dataclass(frozen=True, eq=False)
class Configuration:
    """Cells that differ in seed and fold alone: one line of a table.

    Attributes:
        cell: stands for all, see :attr:`leuk.grid.run_id.RunId.configuration`.
        records: of all of them, complete or not.
        runs: the complete ones whose predictions could be read.
        name: what the line is called; as its cell, if empty.
    """

    run: RunId
    records: tuple[Record, ...]
    runs: tuple[Run, ...]
    name: str = ""

    @property
    def title(self) -> str:
        """What the line is called."""
        return self.name or self.run.title

    @property
    def first_seed(self) -> list[Run]:
        """One run of each fold, that of the lowest seed: every test cell once."""
        chosen: dict[int, Run] = {}
        for run in sorted(self.runs, key=lambda run: run.key):
            chosen.setdefault(run.id.fold, run)
        return list(chosen.values())

    @property
    def fitted_once(self) -> bool:
        """Whether no fold has runs of several seeds."""
        return len(self.first_seed) == len(self.runs)


@dataclass(frozen=True, eq=False)
class Results:
    """A sweep, read.

    Attributes:
        groups: in the order of their cells.
        problems: what is missing, half-written or cannot be read, one sentence each.
        shared: each split, and the settings that all its lines have and their names leave out.
    """

    groups: tuple[Configuration, ...]
    problems: tuple[str, ...]
    shared: tuple[str, ...]

    @property
    def records(self) -> list[Record]:
        """All records that could be read, in the order of their cells."""
        return [record for group in self.groups for record in group.records]


class NoRecordsError(StoreError):
    """A folder without a record that can be read.

    Args:
        sweep: the folder.
        problems: what lies in it instead, one sentence each.
    """

    def __init__(self, sweep: Path, problems: Sequence[str]) -> None:
        told = f"{sweep}: no records; run leuk train with name={sweep.name} first"
        super().__init__("\n".join([told, *problems]))
        self.problems = tuple(problems)


def read_results(sweep: Path, workers: int = 1) -> Results:
    """Read every record of a sweep and the predictions of the complete ones.

    Args:
        sweep: its folder.
        workers: processes.

    Raises:
        NoRecordsError: no record in the folder.
    """
    with reading(sweep, workers) as results:
        return results()


@contextmanager
def reading(sweep: Path, workers: int) -> Iterator[Callable[[], Results]]:
    """Begin with :func:`read_results`; give what waits for them, and raises as that does."""
    known: Known = {}
    with begun(lambda folder: _read(folder, known), folders_of(sweep), workers) as found:
        yield lambda: _put_together(sweep, found())


_Found = tuple[Record | None, Run | None, str]
"""A cell's record, its predictions if it is complete, and why one of them is missing."""


def _put_together(sweep: Path, found: Sequence[_Found]) -> Results:
    problems = [problem for record, _, problem in found if not record]
    problems += _without_record(sweep)
    read = [(record, run, problem) for record, run, problem in found if record]
    if not read:
        raise NoRecordsError(sweep, problems)
    read.sort(key=lambda one: one[0].run)
    problems += [problem for _, _, problem in read if problem]
    runs = {run.id: run for _, run, _ in read if run}
    together: dict[RunId, list[Record]] = defaultdict(list)
    for record, *_ in read:
        together[record.run.configuration].append(record)
    groups = [
        Configuration(cell, tuple(them), tuple(runs[one.run] for one in them if one.run in runs))
        for cell, them in together.items()
    ]
    groups.sort(key=lambda group: in_order(group.run))
    names, shared = row_names([group.run for group in groups])
    named = [replace(group, name=names[group.run]) for group in groups]
    return Results(tuple(named), (*problems, *_holes(named)), shared)


def _without_record(sweep: Path) -> list[str]:
    """Folders of cells that were begun and left no record."""
    return [
        f"{folder.name}: no {FILE}; the cell was stopped before it could write one"
        for folder in sorted(sweep.iterdir())
        if folder.is_dir() and _CELL_FOLDER.fullmatch(folder.name) and not (folder / FILE).exists()
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
            f"{folder / name}: no readable predictions ({error}); remove the folder and run the "
            "cell again"
        ) from error
    parts = read_predictions(path, known)
    counts = record.data.get("counts", {})
    for name, part in parts.items():
        expected = sum(counts.get(name, {}).get(label, 0) for label in ("all", "hem"))
        if expected and expected != len(part.paths):
            raise StoreError(
                f"{path}: {len(part.paths)} lines of the {name} part, its record says {expected}; "
                "remove the folder and run the cell again"
            )
    chosen = {
        name: figure["value"]
        for name, figure in record.metrics.get("thresholds", {}).items()
        if figure["value"] is not None
    }
    return Run(record.run, parts["val"], parts["test"], chosen)


def _holes(groups: Sequence[Configuration]) -> list[str]:
    """Seeds and folds that other lines of the same split have and a line lacks."""
    everywhere: dict[tuple[str, ...], set[Key]] = defaultdict(set)
    for group in groups:
        everywhere[_split(group.run)] |= _keys(group.records)
    lacking = []
    for group in groups:
        missing = sorted(everywhere[_split(group.run)] - _keys(group.records))
        if missing:
            named = ", ".join(f"seed {seed} fold {fold}" for seed, fold in missing)
            lacking.append(f"{group.title}: not run, though other lines have it: {named}")
    return lacking


def _split(cell: RunId) -> tuple[str, ...]:
    """The split and in how many folds: of three folds none lacks a fourth."""
    return (cell.split, *(text for text in cell.settings if text.startswith("n_folds_")))


def _keys(records: Iterable[Record]) -> set[Key]:
    return {(record.run.seed, record.run.fold) for record in records}


def matching(one: Configuration, other: Configuration) -> list[tuple[Run, Run]]:
    """Runs of both with the same seed and fold, judged on the same cells, in order."""
    theirs = {run.key: run for run in other.runs}
    return [
        (run, theirs[run.key])
        for run in sorted(one.runs, key=lambda run: run.key)
        if run.key in theirs and np.array_equal(run.test.paths, theirs[run.key].test.paths)
    ]
