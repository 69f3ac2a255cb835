"""Record of a run: its settings, status and results.

It is written atomically at the start (running), on failure and at the end; resuming, dry runs and
reports read it.
"""

import json
import logging
import re
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic_core import core_schema

from leuk.errors import StoreError
from leuk.store import digest, write_json

# --- Parts of a record, plain in memory and checked when read, as a report relies on them


class Bounded(pydantic.BaseModel):
    """Metric with its interval; each may be unknown."""

    value: float | None
    low: float | None
    high: float | None


class Measured(pydantic.BaseModel):
    """Quality measure of explanations, with a known value."""

    value: float
    low: float | None
    high: float | None
    images: int = 0
    subjects: int = 0


class Synthetic(pydantic.BaseModel):
    """``data.synthetic``: synthetic training images."""

    counts: dict[str, int] = {}
    gans: list[str] = []
    artifact: str = ""
    quality_artifact: str = ""
    held_out: str = ""
    quality: dict[str, dict[str, Any]] = {}
    copies: dict[str, int] = {}


class Scale(pydantic.BaseModel):
    """``data.scale``: scale of the training images; ``input`` is the classifier's, in pixels."""

    sizes: list[tuple[int, int]]
    input: int
    frame: float | None = None
    canvas: int | None = None
    areas: tuple[float, float] | None = None


class Data(pydantic.BaseModel):
    """Entry ``data``."""

    fingerprint: str = ""
    files: str | None = None
    counts: dict[str, dict[str, float]] = {}
    dropped: dict[str, int] = {}
    oversampled: dict[str, int] = {}
    synthetic: Synthetic = Synthetic()
    scale: Scale | None = None


class Bins(Bounded):
    """Entry ``area.within_bins``."""

    bins: list[dict[str, float | None]]
    patients: Bounded | None = None


class OneSize(pydantic.BaseModel):
    """Entry ``area.one_size``."""

    metrics: dict[str, Bounded]
    area_auroc: float
    area_auroc_before: float


class Area(pydantic.BaseModel):
    """Entry ``area``."""

    within_bins: Bins
    area_within_bins: float | None
    one_size: OneSize
    area_within_bins_patients: float | None = None


class Cost(pydantic.BaseModel):
    """Entry ``cost``."""

    parameters: int
    flops: int
    latency_ms: float
    batch_latency_ms: float
    memory_bytes: int | None
    resolution: int
    device: str


class Control(pydantic.BaseModel):
    """Entry ``explanations.cohort.controls.<name>``."""

    measures: dict[str, Measured] = {}
    passes_randomization: bool | None = None


class Method(Control):
    """Entry ``explanations.<method>`` of a method with arrays."""

    picture: str
    arrays: str
    images: int
    degenerate: int
    seconds_per_image: float | None = None
    checks: dict[str, float | None] = {}


class Cohort(pydantic.BaseModel):
    """``explanations.cohort``: results of all methods together."""

    pictures: list[str]
    left_out: dict[str, str]
    controls: dict[str, Control] = {}
    curves: str | None = None


@dataclass(frozen=True)
class _As:
    """Annotation by which pydantic checks a value as another type, unless empty, and keeps it."""

    form: Any

    def __get_pydantic_core_schema__(
        self, source: Any, handler: pydantic.GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        def keep(value: Any, check: core_schema.ValidatorFunctionWrapHandler) -> Any:
            if value:
                check(value)
            return value

        return core_schema.no_info_wrap_validator_function(keep, handler(self.form))


_Bounds = dict[str, dict[str, Bounded]]


def _part_of(entry: Any) -> str:
    """Recognize an entry of ``explanations`` by its keys."""
    keys = entry if isinstance(entry, Mapping) else ()
    return "method" if "arrays" in keys else "cohort" if "pictures" in keys else "other"


_Explanation = Annotated[
    Annotated[Method, pydantic.Tag("method")]
    | Annotated[Cohort, pydantic.Tag("cohort")]
    | Annotated[dict[str, Any] | str | None, pydantic.Tag("other")],
    pydantic.Discriminator(_part_of),
]


# --- Identity of a run of the grid, and the name of its folder

LEAKY = "_LEAKY"
"""Suffix of the name of a split whose stages may share patients."""

Kind = Literal["none", "control", "gan"]
"""Kind of an augmentation: none; a control that adds no synthetic images; or images of a GAN."""

OF_AUGMENTATION = ("gan.", "gan_fit.", "augmentation.")
"""Prefixes of the keys of settings that matter only to the augmentation."""

_LONGEST = 130
_UNSAFE = re.compile(r"[^A-Za-z0-9.+-]+")
# Other characters are not allowed in a folder's name, or would be markup in a report.
_Name = Annotated[str, pydantic.Field(pattern=r"^\w[\w .,+@=-]*$")]
_Key = Annotated[str, pydantic.Field(pattern=r"^\w[\w./@-]*$")]


@dataclass(frozen=True)
class RunId:
    """Identity of a run of the grid.

    ``settings`` holds the values of all other settings that change results and differ from the
    experiment's, by dotted key such as ``data.resolution``.
    """

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

    model: _Name
    augmentation: _Name
    kind: Kind
    split: _Name
    leaky: bool = False  # stages may share patients
    fold: int = 0
    seed: int = 0
    settings: Mapping[_Key, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        # Values may be lists, which have no hash; equal settings have the same keys.
        names = (self.model, self.augmentation, self.split, self.leaky, self.fold, self.seed)
        return hash((*names, frozenset(self.settings)))

    @property
    def split_name(self) -> str:
        """Name of the split, with the suffix :data:`LEAKY` if it leaks."""
        return f"{self.split}{LEAKY}" if self.leaky else self.split

    @property
    def folder(self) -> str:
        """Folder name ``<model>-<augmentation>-<split>-s<seed>[-<settings>]``."""
        axes = (self.model, self.augmentation, self.split_name, f"s{self.seed}")
        return "-".join(filter(None, (*axes, short_name(self.settings, self.fold))))

    @property
    def title(self) -> str:
        """Name of the configuration in tables: the folder name without seed and fold."""
        axes = (self.model, self.augmentation, self.split_name)
        return "-".join(filter(None, (*axes, short_name(self.settings))))

    @cached_property
    def configuration(self) -> "RunId":
        """Configuration, common to all seeds and folds: this run with seed 0 and fold 0."""
        return replace(self, seed=0, fold=0)

    @cached_property
    def plain(self) -> "RunId":
        """The same run without augmentation and its settings."""
        kept = {
            key: value
            for key, value in self.settings.items()
            if not key.startswith(OF_AUGMENTATION)
        }
        return replace(self, augmentation="none", kind="none", settings=kept)


def setting_texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Short text of each setting by key: ``{"data.resolution": 96}`` gives ``resolution_96``.

    Only the last component of a key is used, unless two keys share it. Settings of the augmentation
    keep their whole key, so that readers recognize them.
    """
    short = {
        key: key if key.startswith(OF_AUGMENTATION) else key.rpartition(".")[2] for key in settings
    }
    shared = Counter(short.values())
    return {
        key: _UNSAFE.sub("_", f"{name if shared[name] == 1 else key}_{settings[key]}")
        for key, name in short.items()
    }


def short_name(settings: Mapping[str, Any], fold: int = 0) -> str:
    """Return a name for settings, and for a fold unless it is the first.

    If the name is too long for a folder, the longest settings are dropped, and a hash of all
    settings is appended. Neither depends on the fold, so that the folds of a configuration have
    matching names.
    """
    texts = sorted(setting_texts(settings).values(), key=lambda text: (len(text), text))
    end = []
    if len("-".join(texts)) > _LONGEST:
        end = [f"cut_{digest(dict(settings))}"]
        while len("-".join([*texts, *end])) > _LONGEST:
            texts.pop()
    texts += [f"fold_{fold}"] if fold else []
    return "-".join([*sorted(texts), *end]).strip("_")


log = logging.getLogger(__name__)

SCHEMA = 3
FILE = "record.json"

WarningKind = Literal["leaky", "synthetic", "few", "degenerate", "resumed", "other"]
"""A split that leaks; low-quality synthetic images; few patients; explanations without content; a
resumed fit, whose time is only that of its rest; and everything else."""


@dataclass(frozen=True)
class RunWarning:
    """A warning for readers of a run's metrics: its kind, and a sentence."""

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
        fingerprint: hash of ``settings``.
        settings: configured values of all settings that change results.
        timings: seconds per stage.
        metrics: metrics by stage, ``val`` and ``test``, and the ``thresholds`` used.
        calibration: ``temperature`` fitted on ``val``; metrics named ``*_calibrated`` use it.
        referral: band of :func:`leuk.metrics.referral.referral_record` and its results on
            ``test``; empty in older records.
        baselines: metrics of each baseline on ``test``.
        area: see :func:`leuk.runs.evaluate.assess_area`.
        predictions: file name of the scores per image.
        explanations: results and files of each explanation method.
        error: type, message and traceback of a failure.
    """

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

    run: RunId
    fingerprint: str
    status: Literal["running", "complete", "failed"] = "running"
    settings: dict[str, Any] = field(default_factory=dict)
    data: Annotated[dict[str, Any], _As(Data)] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    metrics: Annotated[dict[str, Metrics], _As(_Bounds)] = field(default_factory=dict)
    calibration: dict[str, float] = field(default_factory=dict)
    referral: dict[str, Any] = field(default_factory=dict)
    baselines: Annotated[dict[str, Metrics], _As(_Bounds)] = field(default_factory=dict)
    area: Annotated[dict[str, Any], _As(Area)] = field(default_factory=dict)
    cost: Annotated[dict[str, float | int | str], _As(Cost)] = field(default_factory=dict)
    predictions: str | None = None
    explanations: Annotated[dict[str, Any], _As(dict[str, _Explanation])] = field(
        default_factory=dict
    )
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
            record = _types().validate_python(values)
            if record.area:
                for metrics in (record.metrics["test"], record.area["one_size"]["metrics"]):
                    metrics["auroc"]  # a report compares these
            return record
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(
                f"{path}: no readable record ({_described(error)}); remove the folder and start "
                "the run again"
            ) from error

    @property
    def reason(self) -> str:
        """First line of the error; empty without an error."""
        return next(iter((self.error or {}).get("message", "").strip().splitlines()), "")

    @property
    def state(self) -> str:
        """Status and reason: ``<status>: <first line of the error>``."""
        return f"{self.status}: {self.reason or 'not finished'}"

    def warn(self, kind: WarningKind, text: str) -> None:
        """Add a warning and log it."""
        self.warnings.append(RunWarning(kind, text))
        leaky = "LEAKY: " if kind == "leaky" else ""
        log.warning("%s: %s%s", self.run.folder, leaky, text, extra={"once": text})

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
    """Combine metrics and their lower and upper bounds; missing bounds become None."""
    metrics: Metrics = {}
    for name, value in values.items():
        low, high = (intervals or {}).get(name, (None, None))
        metrics[name] = {"value": value, "low": low, "high": high}
    return metrics
