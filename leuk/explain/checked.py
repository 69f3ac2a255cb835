"""What checks found, cell by cell, and the tables made of it.

Filled by :mod:`leuk.explain.checks`; read by the report.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from leuk.evaluate.vectors import Floats
from leuk.explain.explainer import Attribution
from leuk.explain.faithfulness import Curves
from leuk.explain.perturb import Hide
from leuk.explain.randomisation import CHANGED_BELOW, Cascade
from leuk.explain.subject_means import ANY, Mean, SubjectMeans

_SHARES = (
    "deletion_",
    "insertion_",
    "infidelity",
    "randomised_",
    "positive_",
    "absolute_",
    "area_",
)
"""How the names of measures begin that lie between 0 and 1, unless :data:`_BOUNDS` says others."""

_BOUNDS = {
    "_over_random": ANY,
    "insertion_minus_": (-1.0, 1.0),
    "_ssim": (-1.0, 1.0),
    "_raw": (0.0, math.inf),
    "_ratio": (0.0, math.inf),
    "sensitivity": (0.0, math.inf),
}
"""Part of a measure's name to what its mean cannot pass."""

_DIGITS = 6


@dataclass(frozen=True, eq=False)
class Measured:
    """One method on B cells.

    Attributes:
        attribution: its maps.
        control: whether it ignores the classifier.
        numbers: by measure ``(B,)``; NaN where it does not apply.
        curves: by how pixels are hidden; NaN likewise.
        cascade: of the first cells; None where it was not tried.
    """

    attribution: Attribution
    control: bool
    numbers: Mapping[str, Floats]
    curves: Mapping[Hide, Curves]
    cascade: Cascade | None


@dataclass(frozen=True, eq=False)
class Checked:
    """What was found, methods first and controls after them.

    Attributes:
        methods: a line a method: ``method``, ``control``, ``unit``, ``signed``, ``cells`` (all of
            them), ``degenerate`` (of these, left out of every other number), ``seconds_per_image``
            and ``passes_randomisation`` (see :func:`passes_randomization`; None where it was not
            tried).
        measures: ``method``, ``measure``, ``value``, ``low`` and ``high`` (95 % over subjects),
            ``cells`` and ``subjects`` (that had a value).
        curves: ``method``, ``hide``, ``curve`` (deletion or insertion), ``share`` of the cell's
            pixels and mean ``probability`` of the predicted class.
        agreement: methods by methods, see :func:`leuk.explain.agreement.agreement`.
        randomisation: ``method``, ``stage`` (from 1), ``layers`` (re-initialised at it), means of
            ``spearman`` and ``absolute`` (their sizes) and of ``ssim``, over ``cells``.
        cells: a line a method and cell: ``method``, ``cell`` (its position) and each measure.
        empty: cells without a lit pixel, left out everywhere.
    """

    methods: pd.DataFrame
    measures: pd.DataFrame
    curves: pd.DataFrame
    agreement: pd.DataFrame
    randomisation: pd.DataFrame
    cells: pd.DataFrame
    empty: int

    def summary(self) -> dict[str, Any]:
        """Plain values for ``record.json``; what there is not is None.

        ``methods`` (by name its line and its ``measures``, by name ``value``, ``low``, ``high``,
        ``cells`` and ``subjects``), ``agreement`` (by name by name) and ``empty``.
        """
        methods: dict[str, Any] = {}
        for line in self.methods.to_dict("records"):
            own = self.measures[self.measures["method"] == line["method"]]
            found = own.drop(columns="method").set_index("measure").to_dict("index")
            name = str(line.pop("method"))
            methods[name] = {**line, "measures": found}
        agreed = self.agreement.to_dict("index")
        plain: dict[str, Any] = _plain(
            {"methods": methods, "agreement": agreed, "empty": self.empty}
        )
        return plain


def tabulated(
    measured: Mapping[str, Measured], agreed: pd.DataFrame, empty: int, means: SubjectMeans
) -> Checked:
    """Tables of methods that were measured on the same cells.

    Args:
        measured: by method.
        agreed: methods by methods.
        empty: cells without a lit pixel.
        means: over the subjects of the cells.
    """
    return Checked(
        methods=pd.DataFrame([_line(name, it, means) for name, it in measured.items()]),
        measures=pd.DataFrame(
            [
                {"method": name, "measure": measure, **asdict(_mean(measure, values, means))}
                for name, it in measured.items()
                for measure, values in it.numbers.items()
            ]
        ),
        curves=pd.concat(
            [_curves(name, it, means) for name, it in measured.items()], ignore_index=True
        ),
        agreement=agreed,
        randomisation=pd.DataFrame(
            [row for name, it in measured.items() for row in _stages(name, it.cascade, means)]
        ),
        cells=pd.concat(
            [
                pd.DataFrame({"method": name, "cell": np.arange(len(it.attribution.maps))}).assign(
                    **it.numbers
                )
                for name, it in measured.items()
            ],
            ignore_index=True,
        ),
        empty=empty,
    )


def passes_randomization(similarity: Mean) -> bool | None:
    """Decide the randomization test of a method from its interval over patients.

    Args:
        similarity: of its maps to those of the random copy, in [0, 1].

    Returns:
        True where the whole interval is below :data:`leuk.explain.randomisation.CHANGED_BELOW`,
        False where none of it is, and None where the patients do not decide: the interval holds the
        limit, or there are fewer than two patients.
    """
    if similarity.high < CHANGED_BELOW:
        return True
    return False if similarity.low >= CHANGED_BELOW else None


def _mean(measure: str, values: Floats, means: SubjectMeans) -> Mean:
    return means.of(values, _bounds(measure))


def _line(name: str, it: Measured, means: SubjectMeans) -> dict[str, Any]:
    count = len(it.attribution.maps)
    similarity = it.numbers.get("randomised_similarity")
    return {
        "method": name,
        "control": it.control,
        "unit": it.attribution.unit,
        "signed": it.attribution.signed,
        "cells": count,
        "degenerate": int(it.attribution.degenerate.sum()),
        "seconds_per_image": it.attribution.seconds / count,
        "passes_randomisation": None
        if similarity is None
        else passes_randomization(_mean("randomised_similarity", similarity, means)),
    }


def _curves(name: str, it: Measured, means: SubjectMeans) -> pd.DataFrame:
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "method": name,
                    "hide": hide,
                    "curve": curve,
                    "share": found.shares,
                    "probability": means.curve(values),
                }
            )
            for hide, found in it.curves.items()
            for curve, values in (("deletion", found.deletion), ("insertion", found.insertion))
        ],
        ignore_index=True,
    )


def _stages(name: str, cascade: Cascade | None, means: SubjectMeans) -> Iterable[dict[str, Any]]:
    if cascade is None:
        return
    for stage, layers in enumerate(cascade.layers):
        spearman = means.of(np.abs(cascade.spearman[stage]))
        yield {
            "method": name,
            "stage": stage + 1,
            "layers": " ".join(layers),
            "spearman": spearman.value,
            "absolute": means.of(np.abs(cascade.absolute[stage])).value,
            "ssim": means.of(cascade.ssim[stage]).value,
            "cells": spearman.cells,
        }


def _bounds(measure: str) -> tuple[float, float]:
    for part, bounds in _BOUNDS.items():
        if part in measure:
            return bounds
    return (0.0, 1.0) if measure.startswith(_SHARES) else ANY


def _plain(value: Any) -> Any:
    """Numbers, texts, None, and containers of these."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return value
