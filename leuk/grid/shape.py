"""Validation of the optional parts of a record, on which a report relies.

Applied when a record is read, as it may have been edited or come from an untrusted source.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pydantic


@dataclass(frozen=True)
class Bounded:
    """Metric with its interval; each may be unknown."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Measured:
    """Quality measure of explanations, with a known value."""

    value: float
    low: float | None
    high: float | None
    images: int = 0
    subjects: int = 0


@dataclass(frozen=True)
class Synthetic:
    """``data.synthetic``: synthetic training images."""

    counts: dict[str, int] = field(default_factory=dict)
    gans: list[str] = field(default_factory=list)
    artifact: str = ""
    quality_artifact: str = ""
    held_out: str = ""
    quality: dict[str, dict[str, Any]] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """``data.scale``: scale of the training images; ``input`` is the classifier's, in pixels."""

    sizes: list[tuple[int, int]]
    input: int
    frame: float | None = None
    canvas: int | None = None
    areas: tuple[float, float] | None = None


@dataclass(frozen=True)
class Data:
    """Entry ``data``."""

    fingerprint: str = ""
    files: str | None = None
    counts: dict[str, dict[str, float]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    oversampled: dict[str, int] = field(default_factory=dict)
    synthetic: Synthetic = field(default_factory=Synthetic)
    scale: Scale | None = None


@dataclass(frozen=True)
class Bins(Bounded):
    """Entry ``area.within_bins``."""

    bins: list[dict[str, float | None]]
    patients: Bounded | None = None


@dataclass(frozen=True)
class OneSize:
    """Entry ``area.one_size``."""

    metrics: dict[str, Bounded]
    area_auroc: float
    area_auroc_before: float


@dataclass(frozen=True)
class Area:
    """Entry ``area``."""

    within_bins: Bins
    area_within_bins: float | None
    one_size: OneSize
    area_within_bins_patients: float | None = None


@dataclass(frozen=True)
class Cost:
    """Entry ``cost``."""

    parameters: int
    flops: int
    latency_ms: float
    batch_latency_ms: float
    memory_bytes: int | None
    resolution: int
    device: str


@dataclass(frozen=True)
class Control:
    """Entry ``explanations.cohort.controls.<name>``."""

    measures: dict[str, Measured] = field(default_factory=dict)
    passes_randomization: bool | None = None


@dataclass(frozen=True)
class Method(Control):
    """Entry ``explanations.<method>`` of a method with arrays."""

    picture: str = field(kw_only=True)
    arrays: str = field(kw_only=True)
    images: int = field(kw_only=True)
    degenerate: int = field(kw_only=True)
    seconds_per_image: float | None = field(kw_only=True, default=None)
    checks: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Cohort:
    """``explanations.cohort``: results of all methods together."""

    pictures: list[str]
    left_out: dict[str, str]
    controls: dict[str, Control] = field(default_factory=dict)
    curves: str | None = None


Metrics = dict[str, dict[str, Bounded]]
_PARTS: dict[str, Any] = {
    "metrics": Metrics,
    "baselines": Metrics,
    "data": Data,
    "area": Area,
    "cost": Cost,
    "explanations": dict[str, dict[str, Any] | str | None],
}


def check_parts(values: Mapping[str, Any]) -> None:
    """Check the parts of a record that a report reads.

    Args:
        values: values of the record by field.

    Raises:
        ValueError: a value is invalid; the message gives its path and the problem.
    """
    for name, form in _PARTS.items():
        if values.get(name):
            _check(name, form, values[name])
    for name, entry in values.get("explanations", {}).items():
        if name == "cohort" and isinstance(entry, Mapping) and "pictures" in entry:
            _check("explanations.cohort", Cohort, entry)
        elif isinstance(entry, Mapping) and "arrays" in entry:
            _check(f"explanations.{name}", Method, entry)
    if values.get("area"):
        for metrics in (values["metrics"].get("test", {}), values["area"]["one_size"]["metrics"]):
            if "auroc" not in metrics:
                raise ValueError("area: metrics.test and area.one_size.metrics need an auroc")


def _check(name: str, form: Any, value: Any) -> None:
    try:
        _adapter(form).validate_python(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(map(str, (name, *first["loc"])))
        raise ValueError(f"{path}: {first['msg']}") from error


@cache
def _adapter(form: Any) -> "pydantic.TypeAdapter[Any]":
    return pydantic.TypeAdapter(form)
