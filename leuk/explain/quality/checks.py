"""Quality checks of explanation methods, compared with control maps that ignore the classifier.

The measures, computed from existing attributions:

| measure | definition | good |
|---|---|---|
| ``deletion_black``, ``_blur`` | mean probability of the predicted class, hiding pixels | low |
| ``insertion_black``, ``_blur`` | the same, showing pixels, highest values first | high |
| ``insertion_minus_deletion_...`` | their difference; about 0 in random order | high |
| ``..._over_random`` | that minus the ``random`` control's, image by image | above 0 |
| ``infidelity`` | share of the effect of removals that no multiple of the map predicts | low |
| ``infidelity_raw`` | Captum's infidelity, in squared log-odds | low |
| ``sensitivity`` | largest relative change of the map under slight pixel noise | low |
| ``randomized_spearman`` | absolute rank correlation with the map of a random copy | low |
| ``randomized_absolute`` | the same of absolute values of the maps | low |
| ``randomized_similarity`` | the larger of the last two; decides the randomization test | low |
| ``randomized_ssim`` | structural similarity of the same two maps | low |
| ``positive_border`` etc. | share of positive attribution in the region | |
| ``area_border`` etc. | share of the area in the region | |
| ``positive_border_ratio`` etc. | ratio of the two; 1 is chance level | |

A method's own ``checks`` are added. Means are over patients of a sample that is balanced by
outcome: errors weigh more in it than among all test images.
See :mod:`leuk.explain.quality.faithfulness`,
:mod:`leuk.explain.quality.randomization` and :mod:`leuk.explain.quality.regions`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.integrate import trapezoid
from torch import Tensor

from leuk.classifiers.base import Classifier
from leuk.config.schema import Count, CountOrZero, Positive, Share
from leuk.data.decode import cell_mask
from leuk.data.labels import Label
from leuk.errors import ConfigError
from leuk.explain.base import Attribution, Explainer
from leuk.explain.figures import curves_figure, save
from leuk.explain.perturb import Hide, hidden
from leuk.explain.quality.faithfulness import (
    Case,
    controls,
    curves,
    infidelity,
    removals,
    sensitivity,
)
from leuk.explain.quality.randomization import CHANGED_BELOW, agreement, cascades
from leuk.explain.quality.regions import BAND, region_shares, regions_of
from leuk.metrics.arrays import Floats
from leuk.metrics.bootstrap import Fold, estimates
from leuk.store import csv_text, write_text

HIDES: tuple[Hide, ...] = ("black", "blur")
"""Ways to hide pixels along the curves; square removals use the first."""

ANY = (-math.inf, math.inf)
"""Bounds of an unbounded measure."""

_BOUNDS = {
    "_over_random": ANY,
    "insertion_minus_": (-1.0, 1.0),
    "_ssim": (-1.0, 1.0),
    "_raw": (0.0, math.inf),
    "_ratio": (0.0, math.inf),
    "sensitivity": (0.0, math.inf),
    "deletion_": (0.0, 1.0),
    "insertion_": (0.0, 1.0),
    "infidelity": (0.0, 1.0),
    "randomized_": (0.0, 1.0),
    "positive_": (0.0, 1.0),
    "absolute_": (0.0, 1.0),
    "area_": (0.0, 1.0),
}
"""Part of a measure's name to the bounds of its mean; the first match counts."""

REPORTED = (
    "insertion_minus_deletion_black",
    "insertion_minus_deletion_blur",
    "insertion_minus_deletion_black_over_random",
    "insertion_minus_deletion_blur_over_random",
    "infidelity",
    "sensitivity",
    "randomized_similarity",
    "randomized_spearman",
    "randomized_absolute",
    "area_border",
    "positive_border",
    "positive_border_ratio",
    "positive_interior_ratio",
    "positive_background_ratio",
    "positive_border_of_cell_ratio",
    "r2",
    "stability",
    "additivity_error",
)
"""Measures that go into the record."""


class Mean(NamedTuple):
    """Mean over patients of the means over each patient's images, with its 95 % interval."""

    value: float  # NaN without finite values
    low: float  # NaN with fewer than two patients, which do not show how patients differ
    high: float
    images: int  # number of images with a finite value
    subjects: int  # number of patients of these images


def patient_mean(
    values: Floats,
    patients: npt.NDArray[np.generic],
    bounds: tuple[float, float] = ANY,
    draws: int = 1000,
    seed: int = 0,
) -> Mean:
    """Mean over patients of ``values (B,)``, without those that are not finite, with its interval.

    The interval is the value plus or minus t standard errors, which
    :mod:`leuk.metrics.bootstrap` found best. With two finite bounds of the mean, the computation is
    on the log-odds of the relative position between the bounds.
    """
    means, images = _by_patient(values, patients), int(np.isfinite(values).sum())
    value, count = _mean(values, patients), len(means)
    if count < 2:
        return Mean(value, math.nan, math.nan, images, count)
    fold = Fold([None], [np.arange(count)], np.ones(count, np.int64))
    (found,) = estimates(
        [fold], lambda _, weights: (weights @ means)[None] / weights.sum(axis=1), draws, seed=seed
    )
    lowest, highest = bounds
    if math.isfinite(lowest) and math.isfinite(highest):
        low, high = found.interval_within(0.95, lowest, highest, count)
    else:
        low, high = found.interval(0.95)
    return Mean(value, max(low, lowest), min(high, highest), images, count)


def _by_patient(values: Floats, patients: npt.NDArray[np.generic]) -> Floats:
    """Mean of each patient with a finite value."""
    finite = np.isfinite(values)
    codes = np.unique(patients.astype(str)[finite], return_inverse=True)[1]
    return np.asarray(np.bincount(codes, values[finite]) / np.bincount(codes))


def _mean(values: Floats, patients: npt.NDArray[np.generic]) -> float:
    means = _by_patient(values, patients)
    return float(means.mean()) if len(means) else math.nan


def passes_randomization(similarity: Mean) -> bool | None:
    """Decide the randomization test from the similarity to maps of a random copy, in [0, 1].

    True if the whole interval is below :data:`.randomization.CHANGED_BELOW`, False if it is
    entirely at or above that limit, and None if undecided: the interval contains the limit, or
    fewer than two patients have a value.
    """
    if similarity.high < CHANGED_BELOW:
        return True
    return False if similarity.low >= CHANGED_BELOW else None


@dataclass(frozen=True)
class CheckSettings:
    """Extent of the checks, and thereby their cost.

    Each method costs ``4 * steps`` forward passes per image, ``randomized_images * stages``
    explanations and ``sensitivity_images * (sensitivity_samples + 1)`` more. All methods share
    ``removals + 1`` forward passes per image.

    Attributes:
        steps: steps of the deletion and insertion curves.
        removals: squares removed from each image for the infidelity.
        band: width of the border, as a share of the cell's diameter.
        sensitivity_images: number of images explained again with pixel noise; 0 skips the test.
        sensitivity_samples: noisy copies per image.
        sensitivity_radius: amplitude of the noise on pixels in [0, 1].
        randomized_images: number of images explained again by random copies of the classifier; 0
            skips the test.
        stages: number of stages of the randomization cascade.
        draws: bootstrap resamples of the patients.
        batch_size: images per forward pass.
        seed: seed of all random draws.
    """

    steps: Count = 16
    removals: Count = 32
    band: Share = BAND
    sensitivity_images: CountOrZero = 24
    sensitivity_samples: Count = 4
    sensitivity_radius: Positive = 0.02
    randomized_images: CountOrZero = 24
    stages: Count = 4
    draws: Count = 1000
    batch_size: Count = 64
    seed: CountOrZero = 0


@dataclass(frozen=True, eq=False)
class Checked:
    """Tables of all checks, methods first, then controls.

    Attributes:
        per_image: a row per ``method`` and ``image`` (its position) and a column per measure; NaN
            for images without a usable map. ``measures`` follow from it.
        measures: ``method``, ``measure`` and the columns of :class:`Mean`.
        methods: a row per method: ``method``, ``control``, ``unit``, ``signed``, ``images`` (number
            of images), ``degenerate`` (number of degenerate maps, which no other value includes),
            ``seconds_per_image`` and ``passes_randomization`` (see :func:`passes_randomization`;
            None if the test was skipped).
        curves: ``method``, ``hide``, ``curve`` (deletion or insertion), ``share`` of the cell's
            pixels and mean ``probability`` of the predicted class.
        agreement: methods by methods, see :func:`leuk.explain.quality.randomization.agreement`.
        randomization: ``method``, ``stage`` (from 1), ``layers`` (re-initialized at this stage),
            mean absolute values of ``spearman`` and ``absolute``, mean ``ssim``, and ``images``
            (number of images with a value).

    No table includes values of images without a lit pixel.
    """

    per_image: pd.DataFrame
    measures: pd.DataFrame
    methods: pd.DataFrame
    curves: pd.DataFrame
    agreement: pd.DataFrame
    randomization: pd.DataFrame


def check(
    classifier: Classifier,
    explainers: Mapping[str, Explainer],
    attributions: Mapping[str, Attribution],
    images: Tensor,
    background: Tensor,
    patients: npt.NDArray[np.generic],
    predicted: Tensor,
    settings: CheckSettings = CheckSettings(),
) -> Checked:
    """Check methods and controls; see :class:`CheckSettings` for the cost.

    ``attributions`` are maps for leukemia, by the names of ``explainers``, of images ``(B, 3, R,
    R)`` in [0, 1], like the training images ``background``; ``patients (B,)`` are theirs. The
    target of all measures is the class ``predicted``, ``int64 (B,)``.

    Raises:
        ConfigError: a method has the name of a control.
    """
    ignorant = controls(settings.seed)
    for name in set(explainers) & set(ignorant):
        raise ConfigError(f"explain={name}: a control of the checks has this name; choose another")
    methods: dict[str, Explainer] = {**explainers, **ignorant}
    with torch.inference_mode(False):  # a tensor made within it has no gradients
        images = images.to(classifier.device).clone()
        background = background.to(classifier.device).clone()
    target = predicted.cpu()
    case = Case(classifier, images, target, background, settings.batch_size, settings.seed)
    mask = cell_mask(images).cpu()
    empty = ~mask.flatten(1).any(dim=1)
    regions = regions_of(images, settings.band)
    others = {hide: hidden(images, hide) for hide in HIDES}
    removed = removals(case, others[HIDES[0]], settings.removals)

    # Maps of methods and controls for the predicted class; NaN if degenerate
    found = dict(attributions)
    found |= {name: it.attribute(classifier, images, Label.ALL) for name, it in ignorant.items()}
    usable = {name: ~(it.degenerate | empty) for name, it in found.items()}
    maps = {
        name: found[name].toward(target).where(usable[name][:, None, None], torch.nan)
        for name in methods
    }

    # Explanations of the first images again, by copies with random weights
    few = case.first(settings.randomized_images)
    cascaded = {}
    if settings.randomized_images:
        firsts = {name: it[: len(few.images)] for name, it in maps.items()}
        cascaded = cascades(few, methods, firsts, settings.stages)

    numbers: dict[str, dict[str, Floats]] = {}
    drawn: list[dict[str, Any]] = []
    stages: list[dict[str, Any]] = []
    for name, explainer in methods.items():
        own, filled, ok = {}, maps[name].nan_to_num(), usable[name].numpy()
        for hide in HIDES:
            shares, *both = curves(case, others[hide], filled, settings.steps)
            for curve, heights in zip(("deletion", "insertion"), both, strict=True):
                own[f"{curve}_{hide}"] = np.asarray(trapezoid(heights, shares, axis=1))
                for share, column in zip(shares, heights[ok].T, strict=True):
                    mean = _mean(column, patients[ok])
                    row = {"method": name, "hide": hide, "curve": curve}
                    drawn.append({**row, "share": share, "probability": mean})
            gain = own[f"insertion_{hide}"] - own[f"deletion_{hide}"]
            own[f"insertion_minus_deletion_{hide}"] = gain
        own["infidelity"], own["infidelity_raw"] = infidelity(filled, removed)
        if settings.sensitivity_images:
            own["sensitivity"] = sensitivity(
                case.first(settings.sensitivity_images),
                explainer,
                settings.sensitivity_samples,
                settings.sensitivity_radius,
            )
        for number, stage in enumerate(cascaded.get(name, []), start=1):
            own["randomized_spearman"] = np.abs(stage.spearman)  # those of the last stage stay
            own["randomized_absolute"] = np.abs(stage.absolute)
            own["randomized_similarity"] = stage.similarity
            own["randomized_ssim"] = stage.ssim
            kinds = ("spearman", "absolute", "ssim")
            stages.append(
                {"method": name, "stage": number, "layers": " ".join(stage.layers)}
                | {it: _mean(own[f"randomized_{it}"], patients[: len(few.images)]) for it in kinds}
                | {"images": int(np.isfinite(stage.spearman).sum())}
            )
        own |= region_shares(filled, regions)
        own |= {measure: it.double().numpy() for measure, it in found[name].checks.items()}
        numbers[name] = {
            measure: np.where(ok[: len(column)], column, np.nan) for measure, column in own.items()
        }
    for own in numbers.values():
        for gain in (f"insertion_minus_deletion_{hide}" for hide in HIDES):
            own[f"{gain}_over_random"] = own[gain] - numbers["random"][gain]

    means = {
        (name, measure): patient_mean(
            column, patients[: len(column)], _bounds(measure), settings.draws, settings.seed
        )
        for name, own in numbers.items()
        for measure, column in own.items()
    }
    rows = [
        {
            "method": name,
            "control": name in ignorant,
            "unit": it.unit,
            "signed": it.signed,
            "images": len(images),
            "degenerate": int(it.degenerate.sum()),
            "seconds_per_image": it.seconds / len(images),
            "passes_randomization": passes_randomization(means[name, "randomized_similarity"])
            if cascaded
            else None,
        }
        for name, it in found.items()
    ]
    return Checked(
        pd.concat(
            [
                pd.DataFrame({measure: pd.Series(column) for measure, column in own.items()})
                for own in numbers.values()
            ],
            keys=numbers,
            names=["method", "image"],
        ).reset_index(),
        pd.DataFrame(
            list(means.values()), pd.MultiIndex.from_tuples(means, names=["method", "measure"])
        ).reset_index(),
        pd.DataFrame(rows),
        pd.DataFrame(drawn),
        agreement(maps, mask),
        pd.DataFrame(stages),
    )


def _bounds(measure: str) -> tuple[float, float]:
    return next((bounds for part, bounds in _BOUNDS.items() if part in measure), ANY)


def save_checks(
    folder: Path,
    checked: Checked,
    rows: npt.NDArray[np.integer],
    titles: Mapping[str, str],
    title: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the tables and the curves of a check.

    Files: a CSV per table of :class:`Checked`, of which ``measured_images.csv`` is keyed by
    ``rows``, the images' rows in the bank; ``curves.png`` with the display names ``titles``.

    Returns:
        Two mappings for the record. The first has, by method, ``measures`` (those of
        :data:`REPORTED` that apply) and ``passes_randomization``. The second covers all methods:
        ``controls`` (the same values for maps that ignore the model), ``agreement``, ``tables`` and
        ``curves``. Missing values are None.
    """
    tables = ("methods", "measures", "curves", "randomization")
    for name in tables:
        write_text(folder / f"{name}.csv", csv_text(getattr(checked, name)))
    write_text(folder / "agreement.csv", csv_text(checked.agreement, "method"))
    per_image = checked.per_image.copy()
    per_image.insert(1, "row", rows[per_image.pop("image")])
    write_text(folder / "measured_images.csv", csv_text(per_image))
    save(curves_figure(checked.curves, checked.methods, titles, title), folder / "curves.png")

    known = checked.measures[checked.measures["value"].notna()].set_index(["method", "measure"])
    plain = {
        key: {name: _plain(it) for name, it in own.items()}
        for key, own in known.to_dict("index").items()
    }
    entries: dict[bool, dict[str, Any]] = {False: {}, True: {}}
    for row in checked.methods.to_dict("records"):
        name = row["method"]
        entries[bool(row["control"])][name] = {
            "measures": {it: plain[name, it] for it in REPORTED if (name, it) in plain},
            "passes_randomization": row["passes_randomization"],
        }
    return entries[False], {
        "controls": entries[True],
        "agreement": {
            name: {other: _plain(value) for other, value in own.items()}
            for name, own in checked.agreement.to_dict("index").items()
        },
        "tables": [f"{folder.name}/{name}.csv" for name in (*tables, "agreement")],
        "curves": f"{folder.name}/curves.png",
    }


def _plain(value: float) -> float | None:
    """Round for JSON; a value that is not finite becomes None."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
