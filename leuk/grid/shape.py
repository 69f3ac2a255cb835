"""What the free parts of a record look like where they are there, so that a report can rely on it.

Used where a record is read: one may have been edited, or come from somebody else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pydantic


@dataclass(frozen=True)
class Bounded:
    """A figure with its interval; any of them may be unknown."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Measured:
    """A measure of explanations, which is left out where it is unknown."""

    value: float
    low: float | None
    high: float | None
    cells: int = 0
    subjects: int = 0


@dataclass(frozen=True)
class Made:
    """Made cells of a training part."""

    counts: dict[str, int] = field(default_factory=dict)
    gans: list[str] = field(default_factory=list)
    cells: str = ""
    judged: str = ""
    held_out: str = ""
    quality: dict[str, dict[str, Any]] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """``data.scale``: of the training images; ``input`` is the classifier's, in pixels."""

    sizes: list[tuple[int, int]]
    input: int
    frame: float | None = None
    canvas: int | None = None
    areas: tuple[float, float] | None = None


@dataclass(frozen=True)
class Data:
    """``data``."""

    fingerprint: str = ""
    files: str | None = None
    counts: dict[str, dict[str, float]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    synthetic: Made = field(default_factory=Made)
    scale: Scale | None = None


@dataclass(frozen=True)
class Bins(Bounded):
    """``area.within_bins``."""

    bins: list[dict[str, float | None]]


@dataclass(frozen=True)
class OneSize:
    """``area.one_size``."""

    metrics: dict[str, Bounded]
    area_auroc: float
    area_auroc_before: float


@dataclass(frozen=True)
class Area:
    """``area``."""

    within_bins: Bins
    area_within_bins: float | None
    one_size: OneSize


@dataclass(frozen=True)
class Cost:
    """``cost``."""

    parameters: int
    flops: int
    latency_ms: float
    batch_latency_ms: float
    memory_bytes: int | None
    resolution: int
    device: str


@dataclass(frozen=True)
class Control:
    """``explanations.cohort.controls.<name>``."""

    measures: dict[str, Measured] = field(default_factory=dict)
    passes_randomisation: bool | None = None


@dataclass(frozen=True)
class Method(Control):
    """``explanations.<method>``, where it has arrays."""

    picture: str = field(kw_only=True)
    arrays: str = field(kw_only=True)
    cells: int = field(kw_only=True)
    degenerate: int = field(kw_only=True)
    seconds_per_cell: float | None = field(kw_only=True, default=None)
    checks: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Together:
    """``explanations.cohort``, of all methods."""

    pictures: list[str]
    left_out: dict[str, str]
    controls: dict[str, Control] = field(default_factory=dict)
    curves: str | None = None


Figures = dict[str, dict[str, Bounded]]
_PARTS: dict[str, Any] = {
    "metrics": Figures,
    "baselines": Figures,
    "data": Data,
    "area": Area,
    "cost": Cost,
    "explanations": dict[str, dict[str, Any] | str | None],
}


def check_parts(values: Mapping[str, Any]) -> None:
    """Refuse parts of a record that a report could not read.

    Args:
        values: of the record by field.

    Raises:
        ValueError: naming the part, the place in it and what is wrong there.
    """
    for name, form in _PARTS.items():
        if values.get(name):
            _check(name, form, values[name])
    for name, said in values.get("explanations", {}).items():
        if name == "cohort" and isinstance(said, Mapping) and "pictures" in said:
            _check("explanations.cohort", Together, said)
        elif isinstance(said, Mapping) and "arrays" in said:
            _check(f"explanations.{name}", Method, said)
    if values.get("area"):
        for place in (values["metrics"].get("test", {}), values["area"]["one_size"]["metrics"]):
            if "auroc" not in place:
                raise ValueError("area: no AUROC beside it")


def _check(name: str, form: Any, value: Any) -> None:
    try:
        _adapter(form).validate_python(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, (name, *first["loc"])))
        raise ValueError(f"{place}: {first['msg']}") from error


@cache
def _adapter(form: Any) -> "pydantic.TypeAdapter[Any]":
    return pydantic.TypeAdapter(form)
