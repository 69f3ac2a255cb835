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
outcome: errors weigh more in it than among all test images. See :mod:`leuk.explain.faithfulness`,
:mod:`leuk.explain.randomization` and :mod:`leuk.explain.regions`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from leuk.classifiers.classifier import Classifier
from leuk.config.ranges import Count, CountOrZero, Positive, Share
from leuk.data.labels import Label
from leuk.evaluate.vectors import Floats
from leuk.explain.agreement import agreement
from leuk.explain.checked import Checked, Measured, tabulated
from leuk.explain.controls import all_controls
from leuk.explain.explainer import Attribution, Explainer
from leuk.explain.faithfulness import Curves, curves, infidelity, removals, sensitivity
from leuk.explain.perturb import Hide, cell_mask, hidden
from leuk.explain.randomization import Cascade, cascades
from leuk.explain.regions import BAND, region_shares, regions_of
from leuk.explain.subject_means import SubjectMeans

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
