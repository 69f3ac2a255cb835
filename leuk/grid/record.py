"""The record a cell leaves: what it was, how it went, what it found.

Written whole at the start (running), on failure and at the end; resume, dry run and report read it.
"""

import json
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pydantic

from leuk.errors import StoreError
from leuk.grid.cell import Cell
from leuk.grid.shape import check_parts
from leuk.store.atomic import write_json

SCHEMA = 1
FILE = "record.json"

WENT_ON = "fit: went on from a stopped one; its time is that of the rest"
"""The warning of a cell whose time says little."""

MADE = "made cells: "
"""What a warning of made cells to be wary of begins with."""

Figures = dict[str, dict[str, float | None]]
"""Metric name to ``value``, ``low`` and ``high``; the bounds are null where not computed."""


@dataclass
class Record:
    """One cell's record; the fields are those of the file.

    Attributes:
        cell: which cell.
        fingerprint: hash of every setting that changes results.
        status: how far it came.
        settings: what it was made of: every setting that changes results, as it was configured.
        data: counts and fingerprint of the data.
        versions: of Python and the libraries.
        device: what it ran on, and in which precision.
        timings: seconds of each stage.
        metrics: figures of ``val`` and ``test``, and the ``thresholds`` they used.
        calibration: ``temperature``, fitted on ``val``; ``*_calibrated`` figures are after it.
        referral: the band of :func:`leuk.evaluate.referral.referral_record` and what it achieved on
            ``test``; empty in records from before it was measured.
        baselines: figures on ``test`` of each baseline.
        area: what is left of the figures on ``test`` among cells of like area, and at one size.
        cost: parameters, arithmetic, time and memory of the model.
        predictions: file of per-cell scores.
        explanations: what each method left.
        warnings: what a reader must know before believing the figures.
        error: type, message and traceback of a failure.
    """

    cell: Cell
    fingerprint: str
    status: Literal["running", "complete", "failed"] = "running"
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Figures] = field(default_factory=dict)
    calibration: dict[str, float] = field(default_factory=dict)
    referral: dict[str, Any] = field(default_factory=dict)
    baselines: dict[str, Figures] = field(default_factory=dict)
    area: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float | int | str] = field(default_factory=dict)
    predictions: str | None = None
    explanations: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: dict[str, str] | None = None

    def write(self, folder: Path) -> None:
        """Write ``record.json`` into the cell's folder, whole."""
        values = asdict(self)
        write_json(folder / FILE, {"schema": SCHEMA, "status": values.pop("status"), **values})

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read the record of a cell's folder.

        Raises:
            StoreError: missing, damaged, written by a newer leuk, or by something else.
        """
        path = folder / FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            schema = values.pop("schema")
            if schema > SCHEMA:
                raise StoreError(f"{path}: written by a newer leuk (schema {schema}); upgrade leuk")
            _refuse_unknown(cls, values)
            _refuse_unknown(Cell, values["cell"])
            record = _types().validate_python(values)
            check_parts(values)
            record.cell.check()
            return record
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(
                f"{path}: no readable record ({_said(error)}); remove the folder and run the cell "
                "again"
            ) from error

    @property
    def state(self) -> str:
        """How far it came and why no further: ``<status>: <first line of the error>``."""
        message = self.error["message"].strip() if self.error else ""
        return f"{self.status}: {message.splitlines()[0] if message else 'not finished'}"

    def fail(self, error: BaseException) -> None:
        """Take down a failure with its traceback."""
        self.status = "failed"
        self.error = {
            "type": type(error).__name__,
            # An assertion may say nothing.
            "message": str(error).strip() or type(error).__name__,
            "traceback": "".join(traceback.format_exception(error)),
        }


@cache
def _types() -> "pydantic.TypeAdapter[Record]":
    """What the values of a file must be."""
    return pydantic.TypeAdapter(Record)


def _refuse_unknown(form: type[Any], values: Mapping[str, Any]) -> None:
    if unknown := values.keys() - {one.name for one in fields(form)}:
        raise ValueError(f"unknown key {sorted(unknown)[0]!a}")


def _said(error: Exception) -> str:
    if isinstance(error, pydantic.ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def folders_of(sweep: Path) -> list[Path]:
    """Folders one level below ``sweep`` that hold a record, by name."""
    return sorted(path.parent for path in sweep.glob(f"*/{FILE}"))


def read_own(folder: Path) -> Record:
    """The record of a folder that is its cell's.

    Raises:
        StoreError: as :meth:`Record.read`, and of a record in a folder that is not its cell's, such
            as a copy: it would count as one more run.
    """
    record = Record.read(folder)
    if folder.name != record.cell.folder:
        raise StoreError(
            f"{folder}: left out, its record is of {record.cell.folder}; move it out of the sweep, "
            "or give the folder that name"
        )
    return record


def read_records(sweep: Path) -> tuple[list[Record], list[str]]:
    """All records one level below ``sweep``, by folder name, and what could not be read."""
    records, unreadable = [], []
    for folder in folders_of(sweep):
        try:
            records.append(read_own(folder))
        except StoreError as error:
            unreadable.append(str(error))
    return records, unreadable


def figures(
    values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]] | None = None
) -> Figures:
    """Figures with the bounds there are.

    Args:
        values: name to value.
        intervals: name to lower and upper bound.
    """
    bounds = intervals or {}
    return {
        name: dict(
            zip(("value", "low", "high"), (value, *bounds.get(name, (None, None))), strict=True)
        )
        for name, value in values.items()
    }
