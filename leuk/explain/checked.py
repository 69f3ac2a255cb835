"""Results of the explanation checks per image, and the tables aggregated from them.

Computed by :mod:`leuk.explain.checks`; read by the report.
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
from leuk.explain.randomization import CHANGED_BELOW, Cascade
from leuk.explain.subject_means import ANY, Mean, SubjectMeans

_SHARES = (
    "deletion_",
    "insertion_",
    "infidelity",
    "randomized_",
    "positive_",
    "absolute_",
    "area_",
)
"""Prefixes of measures that are bounded by 0 and 1, unless :data:`_BOUNDS` matches first."""

_BOUNDS = {
    "_over_random": ANY,
    "insertion_minus_": (-1.0, 1.0),
    "_ssim": (-1.0, 1.0),
    "_raw": (0.0, math.inf),
    "_ratio": (0.0, math.inf),
    "sensitivity": (0.0, math.inf),
}
"""Substring of a measure's name to the bounds of its mean."""

_DIGITS = 6


@dataclass(frozen=True, eq=False)
class Measured:
    """Checks of one method on B images.

    Attributes:
        attribution: the maps.
        control: whether the method ignores the classifier.
        numbers: values by measure, ``(B,)``; NaN where the measure does not apply.
        curves: curves by the way pixels are hidden; NaN for images without a usable map.
        cascade: randomization test of the first images; None if it was skipped.
    """

    attribution: Attribution
    control: bool
    numbers: Mapping[str, Floats]
    curves: Mapping[Hide, Curves]
    cascade: Cascade | None


@dataclass(frozen=True, eq=False)
class Checked:
    """Tables of all checks, methods first, then controls.

    Attributes:
        methods: a row per method: ``method``, ``control``, ``unit``, ``signed``, ``images`` (number
            of images), ``degenerate`` (number of degenerate maps, which no other value includes),
            ``seconds_per_image`` and ``passes_randomization`` (see :func:`passes_randomization`;
            None if the test was skipped).
        measures: ``method``, ``measure``, ``value``, ``low`` and ``high`` (95 % interval over
            patients), ``images`` and ``subjects`` (images and patients with a value).
        curves: ``method``, ``hide``, ``curve`` (deletion or insertion), ``share`` of the cell's
            pixels and mean ``probability`` of the predicted class.
        agreement: methods by methods, see :func:`leuk.explain.agreement.agreement`.
        randomization: ``method``, ``stage`` (from 1), ``layers`` (re-initialized at this stage),
            mean absolute values of ``spearman`` and ``absolute``, mean ``ssim``, and ``images``
            (number of images with a value).
        per_image: a row per method and image: ``method``, ``image`` (position of the image) and
            each measure.
        empty: number of images without a lit pixel, excluded from all tables.
    """

    methods: pd.DataFrame
    measures: pd.DataFrame
    curves: pd.DataFrame
    agreement: pd.DataFrame
    randomization: pd.DataFrame
    per_image: pd.DataFrame
    empty: int

    def summary(self) -> dict[str, Any]:
        """Plain values for ``record.json``; missing values are None.

        Keys: ``methods`` (by name, the row of the method and its ``measures``, each with ``value``,
        ``low``, ``high``, ``images`` and ``subjects``), ``agreement`` (method to method) and
        ``empty``.
        """
        methods: dict[str, Any] = {}
        for row in self.methods.to_dict("records"):
            own = self.measures[self.measures["method"] == row["method"]]
            found = own.drop(columns="method").set_index("measure").to_dict("index")
            name = str(row.pop("method"))
            methods[name] = {**row, "measures": found}
        agreed = self.agreement.to_dict("index")
        plain: dict[str, Any] = _plain(
            {"methods": methods, "agreement": agreed, "empty": self.empty}
        )
        return plain


def tabulated(
    measured: Mapping[str, Measured], agreed: pd.DataFrame, empty: int, means: SubjectMeans
) -> Checked:
    """Aggregate methods that were checked on the same images.

    Args:
        measured: results per image, by method.
        agreed: rank correlations, methods by methods.
        empty: number of images without a lit pixel.
        means: averages over the patients of the images.
    """
    return Checked(
        methods=pd.DataFrame([_row(name, it, means) for name, it in measured.items()]),
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
        randomization=pd.DataFrame(
            [row for name, it in measured.items() for row in _stages(name, it.cascade, means)]
        ),
        per_image=pd.concat(
            [
                pd.DataFrame({"method": name, "image": np.arange(len(it.attribution.maps))}).assign(
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
        similarity: between maps of the classifier and of its random copy, in [0, 1].

    Returns:
        True if the whole interval is below :data:`leuk.explain.randomization.CHANGED_BELOW`, False
        if it is entirely at or above that limit, and None if undecided: the interval contains the
        limit, or fewer than two patients have a value.
    """
    if similarity.high < CHANGED_BELOW:
        return True
    return False if similarity.low >= CHANGED_BELOW else None


def _mean(measure: str, values: Floats, means: SubjectMeans) -> Mean:
    return means.of(values, _bounds(measure))


def _row(name: str, it: Measured, means: SubjectMeans) -> dict[str, Any]:
    count = len(it.attribution.maps)
    similarity = it.numbers.get("randomized_similarity")
    return {
        "method": name,
        "control": it.control,
        "unit": it.attribution.unit,
        "signed": it.attribution.signed,
        "images": count,
        "degenerate": int(it.attribution.degenerate.sum()),
        "seconds_per_image": it.attribution.seconds / count,
        "passes_randomization": None
        if similarity is None
        else passes_randomization(_mean("randomized_similarity", similarity, means)),
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
            "images": spearman.images,
        }


def _bounds(measure: str) -> tuple[float, float]:
    for substring, bounds in _BOUNDS.items():
        if substring in measure:
            return bounds
    return (0.0, 1.0) if measure.startswith(_SHARES) else ANY


def _plain(value: Any) -> Any:
    """Convert to numbers, strings, None, and containers of these; not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return value
