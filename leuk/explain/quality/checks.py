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
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from leuk.classifiers.base import Classifier
from leuk.config.schema import Count, CountOrZero, Positive, Share
from leuk.data.labels import Label
from leuk.explain.base import Attribution, Explainer
from leuk.explain.perturb import Hide, cell_mask, hidden
from leuk.explain.quality.faithfulness import (
    Curves,
    all_controls,
    curves,
    infidelity,
    removals,
    sensitivity,
)
from leuk.explain.quality.randomization import CHANGED_BELOW, Cascade, agreement, cascades
from leuk.explain.quality.regions import BAND, region_shares, regions_of
from leuk.metrics.arrays import Floats
from leuk.metrics.bootstrap import Bootstrap, Fold

# --- Means of measures per image, with confidence intervals over patients

LEVEL = 0.95
"""Confidence level of every interval."""

ANY = (-math.inf, math.inf)
"""Bounds of an unbounded measure."""


@dataclass(frozen=True)
class Mean:
    """Mean over patients of the means over each patient's images.

    Attributes:
        value: the mean; NaN without finite values.
        low: lower end of the 95 % interval; NaN with fewer than two patients, which do not show how
            patients differ.
        high: upper end of the 95 % interval; NaN like ``low``.
        images: number of images with a finite value.
        subjects: number of patients of these images.
    """

    value: float
    low: float
    high: float
    images: int
    subjects: int


class SubjectMeans:
    """Means over the patients of the same B images.

    Args:
        subjects: ``(B,)``, the patient of each image.
        draws: bootstrap resamples of the patients.
        seed: seed of the resamples.
    """

    def __init__(self, subjects: npt.NDArray[np.generic], draws: int = 1000, seed: int = 0) -> None:
        self.codes = np.unique(subjects.astype(str), return_inverse=True)[1]
        self._bootstrap = cache(lambda count: _bootstrap(count, draws, seed))

    def of(self, values: Floats, bounds: tuple[float, float] = ANY) -> Mean:
        """Mean and interval of a measure.

        The interval is the value plus or minus t standard errors, which
        :mod:`leuk.metrics.bootstrap` found best. With two finite bounds, the computation is on the
        log-odds of the relative position between the bounds.

        Args:
            values: ``(B,)``, a value per image; values that are not finite are excluded.
            bounds: range of the mean.
        """
        means = self._means(values)
        value, images = float(means.mean()) if len(means) else math.nan, int(_finite(values).sum())
        if len(means) < 2:
            return Mean(value, math.nan, math.nan, images, len(means))
        found = self._bootstrap(len(means)).estimate(
            lambda _, weights: (weights @ means) / weights.sum(axis=1)
        )
        lowest, highest = bounds
        if math.isfinite(lowest) and math.isfinite(highest):
            low, high = found.interval_within(LEVEL, lowest, highest, len(means))
        else:
            low, high = found.interval(LEVEL)
        return Mean(value, max(low, lowest), min(high, highest), images, len(means))

    def curve(self, values: Floats) -> Floats:
        """Means ``(K,)`` over patients of values ``(B, K)``, without intervals."""
        means = [self._means(column) for column in values.T]
        return np.array([column.mean() if len(column) else np.nan for column in means])

    def _means(self, values: Floats) -> Floats:
        """Mean of each patient with a finite value."""
        kept = _finite(values)
        sums = np.bincount(self.codes[kept], values[kept])
        counts = np.bincount(self.codes[kept])
        return np.asarray(sums[counts > 0] / counts[counts > 0])


def _finite(values: Floats) -> npt.NDArray[np.bool_]:
    return np.isfinite(values)


def _bootstrap(count: int, draws: int, seed: int) -> Bootstrap[None]:
    return Bootstrap([Fold([None], [np.arange(count)], count)], draws, seed)


# --- Results of the explanation checks per image, and the tables aggregated from them

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
        agreement: methods by methods, see :func:`leuk.explain.quality.randomization.agreement`.
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
        True if the whole interval is below :data:`.randomization.CHANGED_BELOW`, False
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


HIDES: tuple[Hide, ...] = ("black", "blur")
"""Ways to hide pixels along the curves; square removals use the first."""


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


def check(
    classifier: Classifier,
    explainers: Mapping[str, Explainer],
    attributions: Mapping[str, Attribution],
    images: Tensor,
    background: Tensor,
    subjects: npt.NDArray[np.generic],
    predicted: Tensor,
    settings: CheckSettings = CheckSettings(),
) -> Checked:
    """Check methods and controls; see :class:`CheckSettings` for the cost.

    Args:
        classifier: trained classifier; its device is used, it does not change.
        explainers: the methods by name.
        attributions: maps for leukemia, by the same names.
        images: ``(B, 3, R, R)`` in [0, 1].
        background: ``(K, 3, R, R)`` training images in [0, 1].
        subjects: ``(B,)``, the patient of each image.
        predicted: ``int64 (B,)``, the predicted class, which is the target of all measures.
        settings: extent of the checks.

    Raises:
        ValueError: no images, arguments of different lengths, or a method with a control's name.
    """
    controls = all_controls(settings.seed)
    lengths = {name: len(it.maps) for name, it in attributions.items()}
    lengths |= {"subjects": len(subjects), "predicted": len(predicted)}
    if not len(images) or any(length != len(images) for length in lengths.values()):
        raise ValueError(f"{len(images)} images to check, but lengths {lengths}")
    if set(attributions) != set(explainers) or set(explainers) & set(controls):
        raise ValueError(
            f"methods {sorted(explainers)} with attributions of {sorted(attributions)}: each needs "
            f"its own, and a name that is not among {sorted(controls)}"
        )
    batch = _Batch(classifier, images, background, predicted, settings)
    methods = {**explainers, **controls}
    found = {**attributions, **{name: batch.attributed(it) for name, it in controls.items()}}
    cascaded = batch.cascaded(methods, found)
    measured = {
        name: batch.measured(it, found[name], name in controls, cascaded.get(name))
        for name, it in methods.items()
    }
    measured = {name: _compared(it, measured["random"]) for name, it in measured.items()}
    usable = {name: batch.usable_maps(found[name]) for name in methods}
    means = SubjectMeans(subjects, settings.draws, settings.seed)
    return tabulated(measured, agreement(usable, batch.mask), int(batch.empty.sum()), means)


class _Batch:
    """The images to check, with the masks, hidden versions and removals that all methods share."""

    def __init__(
        self,
        classifier: Classifier,
        images: Tensor,
        background: Tensor,
        predicted: Tensor,
        settings: CheckSettings,
    ) -> None:
        self.classifier, self.settings = classifier, settings
        self.target = predicted.cpu()
        with torch.inference_mode(False):  # a tensor made within it has no gradients
            self.images = images.to(classifier.device).clone()
            self.background = background.to(classifier.device).clone()
        self.mask = cell_mask(self.images).cpu()
        self.empty = ~self.mask.flatten(1).any(dim=1)
        self.regions = regions_of(self.images, settings.band)
        self.others = {how: hidden(self.images, how) for how in HIDES}
        self.removed = removals(
            classifier,
            self.images,
            self.others[HIDES[0]],
            self.target,
            settings.removals,
            settings.batch_size,
            settings.seed,
        )

    def attributed(self, explainer: Explainer) -> Attribution:
        return explainer.attribute(self.classifier, self.images, Label.ALL, self.background)

    def usable(self, found: Attribution) -> Tensor:
        return ~(found.degenerate | self.empty)

    def usable_maps(self, found: Attribution) -> Tensor:
        """Return the maps for the predicted class; NaN if degenerate."""
        return found.toward(self.target).where(self.usable(found)[:, None, None], torch.nan)

    def measured(
        self, explainer: Explainer, found: Attribution, control: bool, cascade: Cascade | None
    ) -> Measured:
        usable = self.usable(found)
        maps = self.usable_maps(found).nan_to_num()
        drawn = {how: self._curves(maps, usable, how) for how in HIDES}
        values: dict[str, Floats] = {}
        for how, curve in drawn.items():
            values[f"deletion_{how}"] = curve.deletion_auc
            values[f"insertion_{how}"] = curve.insertion_auc
            values[f"insertion_minus_deletion_{how}"] = curve.insertion_auc - curve.deletion_auc
        values["infidelity"], values["infidelity_raw"] = infidelity(maps, self.removed)
        if self.settings.sensitivity_images:
            values["sensitivity"] = self._sensitivity(explainer)
        if cascade is not None:
            values["randomized_spearman"] = np.abs(cascade.spearman[-1])
            values["randomized_absolute"] = np.abs(cascade.absolute[-1])
            values["randomized_similarity"] = cascade.similarity
            values["randomized_ssim"] = cascade.ssim[-1]
        values |= region_shares(maps, self.regions)
        values |= {name: it.double().numpy() for name, it in found.checks.items()}
        kept = {name: np.where(usable, column, np.nan) for name, column in values.items()}
        return Measured(found, control, kept, drawn, cascade)

    def cascaded(
        self, explainers: Mapping[str, Explainer], found: Mapping[str, Attribution]
    ) -> dict[str, Cascade]:
        """Randomize the weights and compare maps of the first images; NaN for the others.

        Empty if ``settings.randomized_images`` is 0.
        """
        count = min(self.settings.randomized_images, len(self.images))
        if not count:
            return {}
        cascaded = cascades(
            explainers,
            {name: self.usable_maps(it)[:count] for name, it in found.items()},
            self.classifier,
            self.images[:count],
            self.target[:count],
            self.background,
            self.settings.stages,
            self.settings.seed,
        )
        return {
            name: replace(
                it,
                spearman=self._all(it.spearman),
                absolute=self._all(it.absolute),
                ssim=self._all(it.ssim),
            )
            for name, it in cascaded.items()
        }

    def _curves(self, maps: Tensor, usable: Tensor, how: Hide) -> Curves:
        found = curves(
            self.classifier,
            self.images,
            self.others[how],
            maps,
            self.target,
            self.settings.steps,
            self.settings.batch_size,
            self.settings.seed,
        )
        kept = usable.numpy()[:, None]
        return replace(
            found,
            deletion=np.where(kept, found.deletion, np.nan),
            insertion=np.where(kept, found.insertion, np.nan),
        )

    def _sensitivity(self, explainer: Explainer) -> Floats:
        """Sensitivity of the first images; NaN for the others."""
        count = min(self.settings.sensitivity_images, len(self.images))
        found = sensitivity(
            explainer,
            self.classifier,
            self.images[:count],
            self.target[:count],
            self.background,
            self.settings.sensitivity_samples,
            self.settings.sensitivity_radius,
            self.settings.batch_size,
            self.settings.seed,
        )
        return self._all(found)

    def _all(self, first: Floats) -> Floats:
        """Pad ``(..., n)`` values of the first images with NaN to ``(..., B)``."""
        missing = len(self.images) - first.shape[-1]
        return np.pad(first, [*[(0, 0)] * (first.ndim - 1), (0, missing)], constant_values=np.nan)


def _compared(it: Measured, random: Measured) -> Measured:
    """Add the differences from the random control."""
    gains = {
        f"{name}_over_random": it.numbers[name] - random.numbers[name]
        for name in (f"insertion_minus_deletion_{how}" for how in HIDES)
    }
    return replace(it, numbers={**it.numbers, **gains})
