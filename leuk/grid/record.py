"""Record of a run: its settings, status and results.

It is written atomically at the start (running), on failure and at the end; resuming, dry runs and
reports read it.
"""

import json
import logging
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pydantic

from leuk.errors import StoreError
from leuk.grid.run_id import RunId
from leuk.grid.shape import check_parts
from leuk.store.atomic import write_json

log = logging.getLogger(__name__)

SCHEMA = 2
FILE = "record.json"

WarningKind = Literal["leaky", "synthetic", "few", "degenerate", "resumed", "other"]
"""A split that leaks; low-quality synthetic images; few patients; explanations without content; a
resumed fit, whose time is only that of its rest; and everything else."""


@dataclass(frozen=True)
class RunWarning:
    """A warning for readers of a run's metrics.

    Attributes:
        kind: sorts warnings in the report.
        text: one sentence, without the kind.
    """

    kind: WarningKind
    text: str


RESUMED = RunWarning(
    "resumed", "the fit was resumed; its time covers only the epochs after the interruption"
)

Metrics = dict[str, dict[str, float | None]]
"""Metrics by name, each with ``value``, ``low`` and ``high``; bounds are null if not computed."""


@dataclass
class Record:
    """Record of a run, with the fields of ``record.json``.

    Attributes:
        run: identity of the run.
        fingerprint: hash of all settings that change results.
        status: progress of the run.
        settings: configured values of all settings that change results.
        data: counts and fingerprint of the data.
        versions: versions of Python and the libraries.
        device: device and precision.
        timings: seconds per stage.
        metrics: metrics by stage, ``val`` and ``test``, and the ``thresholds`` used.
        calibration: ``temperature`` fitted on ``val``; metrics named ``*_calibrated`` use it.
        referral: band of :func:`leuk.evaluate.referral.referral_record` and its results on
            ``test``; empty in older records.
        baselines: metrics of each baseline on ``test``.
        area: metrics on ``test`` among cells of similar area, and with all cells scaled to the same
            size.
        cost: parameters, arithmetic operations, time and memory of the model.
        predictions: file name of the scores per image.
        explanations: results and files of each explanation method.
        warnings: warnings to consider when reading the metrics.
        error: type, message and traceback of a failure.
    """

    run: RunId
    fingerprint: str
    status: Literal["running", "complete", "failed"] = "running"
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Metrics] = field(default_factory=dict)
    calibration: dict[str, float] = field(default_factory=dict)
    referral: dict[str, Any] = field(default_factory=dict)
    baselines: dict[str, Metrics] = field(default_factory=dict)
    area: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float | int | str] = field(default_factory=dict)
    predictions: str | None = None
    explanations: dict[str, Any] = field(default_factory=dict)
    warnings: list[RunWarning] = field(default_factory=list)
    error: dict[str, str] | None = None

    def write(self, folder: Path) -> None:
        """Write ``record.json`` into the run's folder atomically."""
        values = asdict(self)
        write_json(folder / FILE, {"schema": SCHEMA, "status": values.pop("status"), **values})

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read the record in a run's folder.

        Raises:
            StoreError: the record is missing, damaged or invalid, or written by a newer leuk.
        """
        path = folder / FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            schema = values.pop("schema")
            if schema > SCHEMA:
                raise StoreError(f"{path}: written by a newer leuk (schema {schema}); upgrade leuk")
            if schema < SCHEMA:
                raise StoreError(
                    f"{path}: written by an older leuk (schema {schema}, now {SCHEMA}), with other "
                    "names of settings and metrics; use that leuk, or run the sweep again"
                )
            _refuse_unknown(cls, values)
            _refuse_unknown(RunId, values["run"])
            record = _types().validate_python(values)
            check_parts(values)
            record.run.check()
            return record
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(
                f"{path}: no readable record ({_described(error)}); remove the folder and start "
                "the run again"
            ) from error

    @property
    def state(self) -> str:
        """Status and reason: ``<status>: <first line of the error>``."""
        message = self.error["message"].strip() if self.error else ""
        return f"{self.status}: {message.splitlines()[0] if message else 'not finished'}"

    def warn(self, kind: WarningKind, text: str) -> None:
        """Add a warning and log it."""
        self.warnings.append(RunWarning(kind, text))
        log.warning("%s: %s%s", self.run.folder, "LEAKY: " if kind == "leaky" else "", text)

    def fail(self, error: BaseException) -> None:
        """Record a failure with its traceback."""
        self.status = "failed"
        self.error = {
            "type": type(error).__name__,
            # An assertion may have no message.
            "message": str(error).strip() or type(error).__name__,
            "traceback": "".join(traceback.format_exception(error)),
        }


@cache
def _types() -> "pydantic.TypeAdapter[Record]":
    """Build the validator of the values in a file."""
    return pydantic.TypeAdapter(Record)


def _refuse_unknown(form: type[Any], values: Mapping[str, Any]) -> None:
    if unknown := values.keys() - {known.name for known in fields(form)}:
        raise ValueError(f"unknown key {sorted(unknown)[0]!a}")


def _described(error: Exception) -> str:
    if isinstance(error, pydantic.ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def folders_of(sweep: Path) -> list[Path]:
    """Subfolders of ``sweep`` that hold a record, sorted by name."""
    return sorted(path.parent for path in sweep.glob(f"*/{FILE}"))


def read_own(folder: Path) -> Record:
    """Read the record in a folder, and check that the folder has the run's name.

    Raises:
        StoreError: see :meth:`Record.read`; or the folder has another name, for example because it
            is a copy, which would be counted as a separate run.
    """
    record = Record.read(folder)
    if folder.name != record.run.folder:
        raise StoreError(
            f"{folder}: skipped, as its record belongs to {record.run.folder}; move the folder "
            "out of the sweep, or give it that name"
        )
    return record


def read_records(sweep: Path) -> tuple[list[Record], list[str]]:
    """Read all records of a sweep, sorted by folder name; errors are returned as texts."""
    records, unreadable = [], []
    for folder in folders_of(sweep):
        try:
            records.append(read_own(folder))
        except StoreError as error:
            unreadable.append(str(error))
    return records, unreadable


def as_metrics(
    values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]] | None = None
) -> Metrics:
    """Combine metrics and their intervals.

    Args:
        values: values by metric name.
        intervals: lower and upper bounds by metric name; missing bounds become None.
    """
    bounds = intervals or {}
    return {
        name: dict(
            zip(("value", "low", "high"), (value, *bounds.get(name, (None, None))), strict=True)
        )
        for name, value in values.items()
    }
