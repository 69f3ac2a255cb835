"""Every check of every method on one classifier, beside the same of maps that ignore it.

Takes attributions that were made before and gives tables. What a measure means:

| measure | says | good |
|---|---|---|
| ``deletion_black``, ``_blur`` | mean probability of the predicted class as the cell goes | low |
| ``insertion_black``, ``_blur`` | the same as it comes, the highest pixels first | high |
| ``insertion_minus_deletion_...`` | one less the other; about 0 in random order | high |
| ``..._over_random`` | that less the ``random`` control's, cell by cell | above 0 |
| ``infidelity`` | share of what removing squares does that no multiple of the map foretells | low |
| ``infidelity_raw`` | Captum's own number, in squared log-odds | low |
| ``sensitivity`` | how far the map moves, in its own lengths, when the pixels hardly do | low |
| ``randomised_spearman`` | size of the rank correlation with the map of a random copy | low |
| ``randomised_absolute`` | the same of maps without their sign | low |
| ``randomised_similarity`` | the larger of the last two; it decides the randomization test | low |
| ``randomised_ssim`` | structural similarity of the same two maps | low |
| ``positive_border`` and so on | share of positive attribution there | |
| ``area_border`` and so on | share of the area there | |
| ``positive_border_ratio`` and so on | the one over the other; 1 is what chance gives | |

and what the method says of itself. Means are over patients of a sample that is balanced by outcome:
errors weigh more in it than among all test images. See :mod:`leuk.explain.faithfulness`,
:mod:`leuk.explain.randomisation` and :mod:`leuk.explain.regions`.
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
from leuk.explain.randomisation import Cascade, cascades
from leuk.explain.regions import BAND, region_shares, regions_of
from leuk.explain.subject_means import SubjectMeans

HIDES: tuple[Hide, ...] = ("black", "blur")
"""How pixels are hidden along the curves; squares are removed the first way."""


@dataclass(frozen=True)
class CheckSettings:
    """How much is spent on checking.

    A method costs ``4 * steps`` model calls a cell, ``randomised_cells * stages`` explanations and
    ``sensitivity_cells * (sensitivity_samples + 1)`` more; all of them together ``removals + 1``
    model calls a cell.

    Attributes:
        steps: of the deletion and insertion curves.
        removals: squares removed from each cell for the infidelity.
        band: width of the border, as a share of the cell's diameter.
        sensitivity_cells: the first cells are explained again with noise; 0 for none.
        sensitivity_samples: how often.
        sensitivity_radius: of the noise, pixels being in [0, 1].
        randomised_cells: the first cells are explained again by random copies; 0 for none.
        stages: of the cascade.
        draws: resamples of the subjects for the intervals.
        batch_size: images a pass.
        seed: of everything that is drawn.
    """

    steps: Count = 16
    removals: Count = 32
    band: Share = BAND
    sensitivity_cells: CountOrZero = 24
    sensitivity_samples: Count = 4
    sensitivity_radius: Positive = 0.02
    randomised_cells: CountOrZero = 24
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
    """Check methods and controls; see :class:`CheckSettings` for what it costs.

    Args:
        classifier: fitted; its device is used, it stays as it is.
        explainers: the methods by name.
        attributions: by the same names, of leukemia.
        images: ``(B, 3, R, R)`` in [0, 1].
        background: ``(K, 3, R, R)`` training cells in [0, 1].
        subjects: ``(B,)`` the person behind each cell.
        predicted: ``int64 (B,)``, the class each was called; maps are turned toward it.
        settings: how much is spent.

    Raises:
        ValueError: no cells, columns of other lengths, or a method named as a control is.
    """
    controls = all_controls(settings.seed)
    lengths = {name: len(it.maps) for name, it in attributions.items()}
    lengths |= {"subjects": len(subjects), "predicted": len(predicted)}
    if not len(images) or any(length != len(images) for length in lengths.values()):
        raise ValueError(f"{len(images)} images to check, and of the rest {lengths}")
    if set(attributions) != set(explainers) or set(explainers) & set(controls):
        raise ValueError(
            f"methods {sorted(explainers)} with attributions of {sorted(attributions)}: each needs "
            f"its own, and a name that is not among {sorted(controls)}"
        )
    cells = _Cells(classifier, images, background, predicted, settings)
    asked = {**explainers, **controls}
    found = {**attributions, **{name: cells.attributed(it) for name, it in controls.items()}}
    cascaded = cells.cascaded(asked, found)
    measured = {
        name: cells.measured(it, found[name], name in controls, cascaded.get(name))
        for name, it in asked.items()
    }
    measured = {name: _compared(it, measured["random"]) for name, it in measured.items()}
    usable = {name: cells.usable_maps(found[name]) for name in asked}
    means = SubjectMeans(subjects, settings.draws, settings.seed)
    return tabulated(measured, agreement(usable, cells.mask), int(cells.empty.sum()), means)


class _Cells:
    """The cells, and what is the same for every method."""

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
        """Toward the predicted class; NaN where degenerate."""
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
        if self.settings.sensitivity_cells:
            values["sensitivity"] = self._sensitivity(explainer)
        if cascade is not None:
            values["randomised_spearman"] = np.abs(cascade.spearman[-1])
            values["randomised_absolute"] = np.abs(cascade.absolute[-1])
            values["randomised_similarity"] = cascade.similarity
            values["randomised_ssim"] = cascade.ssim[-1]
        values |= region_shares(maps, self.regions)
        values |= {name: it.double().numpy() for name, it in found.checks.items()}
        kept = {name: np.where(usable, column, np.nan) for name, column in values.items()}
        return Measured(found, control, kept, drawn, cascade)

    def cascaded(
        self, explainers: Mapping[str, Explainer], found: Mapping[str, Attribution]
    ) -> dict[str, Cascade]:
        """Of the first cells, the others NaN; none where there are to be none."""
        count = min(self.settings.randomised_cells, len(self.images))
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
        """Of the first cells, the others NaN."""
        count = min(self.settings.sensitivity_cells, len(self.images))
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
        """``(..., n)`` of the first cells as ``(..., B)``."""
        missing = len(self.images) - first.shape[-1]
        return np.pad(first, [*[(0, 0)] * (first.ndim - 1), (0, missing)], constant_values=np.nan)


def _compared(it: Measured, random: Measured) -> Measured:
    """With how far it is above the random control."""
    gains = {
        f"{name}_over_random": it.numbers[name] - random.numbers[name]
        for name in (f"insertion_minus_deletion_{how}" for how in HIDES)
    }
    return replace(it, numbers={**it.numbers, **gains})
