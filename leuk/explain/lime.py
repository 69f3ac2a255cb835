"""LIME (Ribeiro et al. 2016), by the lime library: by superpixels of the cell and by patches.

lime draws which parts are there, weighs these draws by how near they are to the whole cell, and
fits a ridge regression to what the classifier says of them; a part's weight is its coefficient.
Only the question is ours: the images are put together where the classifier is, many a pass
(:mod:`leuk.explain.perturb`), instead of ten at a time in a loop.

What is fitted is the log-odds. Of a probability all weights become zero once a classifier is sure:
in float32 the softmax of log-odds above 17 is 1.0 whichever parts are there. That, or images that
do not differ (from 0 to 1 and then cast to whole numbers), makes what the thesis's notebooks show:
every weight zero. lime's choice of features does not: it leaves out none of the largest weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from lime.lime_image import LimeImageExplainer
from pydantic import Field
from scipy.stats import spearmanr
from torch import Tensor

from leuk.classifiers.classifier import Classifier
from leuk.config.ranges import Count, CountOrZero
from leuk.explain.explainer import Attribution, Explainer, Unit
from leuk.explain.perturb import (
    Hide,
    ask_parts,
    ask_tokens,
    compared_tokens,
    hidden,
    patch_segments,
    spread,
)
from leuk.explain.superpixels import cell_superpixels

Answer = Callable[[Tensor], Tensor]
"""Log-odds of leukemia, ``float32 (S,)``, where parts are present as ``bool (S, K)`` says."""

_PASS = 64 * 224**2
"""Pixels a pass on a CPU, which is no faster with more."""

_PASS_ELSEWHERE = 256 * 224**2

Draws = Annotated[int, Field(ge=2)]
"""How many samples a line can be fitted to: 2 or more."""


@dataclass(frozen=True)
class LocalFit:
    """A linear model of what a classifier says near one cell.

    Attributes:
        weights: ``float64 (K,)``: what a part adds to the log-odds by being there.
        r2: share of the answers' variance that it explains, near answers counting more (lime's
            score); of the samples it was fitted to, so that few samples flatter it. NaN where the
            answers are all equal.
    """

    weights: npt.NDArray[np.float64]
    r2: float


class PresenceLime(LimeImageExplainer):  # type: ignore[misc] # lime has no types
    """lime's image explainer, which asks about presence rather than about images.

    All but the asking is inherited: the draws, the distances, the kernel and the fit. The image it
    is given is a strip of one pixel a part.

    Args:
        features: lime's ``num_features``, the weights kept; all of them where it is None, and then
            nothing is spent on choosing.
        seed: of the draws.
    """

    def __init__(self, features: int | None, seed: int) -> None:
        chosen = "none" if features is None else "auto"
        super().__init__(feature_selection=chosen, random_state=seed)
        self.features = features

    def fit(self, answer: Answer, parts: int, samples: int) -> LocalFit:
        """Explain one cell of so many parts by so many answers."""
        strip = np.ones((1, parts, 3))
        found = self.explain_instance(
            strip,
            answer,
            labels=(0,),
            top_labels=None,
            hide_color=0,
            num_features=self.features or parts,
            num_samples=samples,
            segmentation_fn=lambda image: np.arange(parts)[None],
        )
        weights = np.zeros(parts)
        for part, weight in found.local_exp[0]:
            weights[part] = weight
        return LocalFit(weights, float(found.score) if weights.any() else float("nan"))

    def data_labels(
        self,
        image: npt.NDArray[Any],
        fudged_image: npt.NDArray[Any],
        segments: npt.NDArray[Any],
        classifier_fn: Answer,
        num_samples: int,
        batch_size: int = 10,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Presence ``(S, K)``, all there in the first row, and the answers ``(S, 1)``.

        Answers are less the first one: the intercept takes what all share, and equal answers are
        exactly 0, as are then their weights.
        """
        presence = self.random_state.randint(0, 2, (num_samples, segments.size))
        presence[0] = 1
        said = classifier_fn(torch.from_numpy(presence).bool()).double().cpu().numpy()
        return presence, (said - said[0])[:, None]


class _Local(Explainer):
    """Weights of parts in local linear models, and how far these can be trusted."""

    def __init__(
        self,
        samples: int,
        features: int | None,
        repeats: int,
        batch_size: int | None,
        seed: int,
    ) -> None:
        self.samples, self.features, self.repeats = samples, features, repeats
        self.batch_size, self.seed = batch_size, seed

    def passes(self, images: Tensor) -> int:
        """How many images of such a size the classifier is asked about at once, on its device."""
        pixels = _PASS if images.device.type == "cpu" else _PASS_ELSEWHERE
        return self.batch_size or max(1, pixels // images.shape[-1] ** 2)

    def _weighed(
        self, answers: Sequence[Answer], counts: Sequence[int], segments: Tensor, unit: Unit
    ) -> Attribution:
        """Weights of all images' parts as maps.

        Args:
            answers: what the classifier says of each of B images.
            counts: of each image's parts; an image without any has a map of zeros.
            segments: ``int64 (B, R, R)``, the part of each pixel.
            unit: what a part is.
        """
        values = torch.zeros(len(counts), max(counts), dtype=torch.float64)
        checks = {"r2": torch.full((len(counts),), torch.nan)}
        if self.repeats > 1:
            checks["stability"] = checks["r2"].clone()
        for place, (answer, parts) in enumerate(zip(answers, counts, strict=True)):
            if not parts:
                continue
            fits = [
                PresenceLime(self.features, self.seed + turn).fit(answer, parts, self.samples)
                for turn in range(self.repeats)
            ]
            values[place, :parts] = torch.from_numpy(fits[0].weights)
            checks["r2"][place] = fits[0].r2
            if self.repeats > 1:
                checks["stability"][place] = _agreement([fit.weights for fit in fits])
        return Attribution(spread(values, segments), unit, checks=checks, segments=segments)


class LIME(_Local):
    """Weights of the cell's superpixels, for every classifier.

    The map is the first seed's; ``checks["r2"]`` is its fit's, see :class:`LocalFit`, and
    ``checks["stability"]`` the mean rank correlation of the weights between any two of the repeats,
    -1 to 1. Both are NaN where there is no cell, or nothing that its parts change.

    Args:
        samples: images asked for a cell in each repeat, so ``samples`` times ``repeats`` in all.
        segments: about how many superpixels a cell, see
            :func:`leuk.explain.superpixels.cell_superpixels`.
        hide: how a hidden superpixel looks, see :func:`leuk.explain.perturb.hidden`.
        features: how many weights lime keeps, the others being 0; all where it is None.
        repeats: fits a cell, each with a seed of its own; with 1 there is no ``stability``.
        batch_size: images a pass; what suits the device and their size where it is None.
        seed: of the first repeat; it draws the same whatever else is explained.
    """

    name = "lime"

    def __init__(
        self,
        samples: Draws = 1000,
        segments: Count = 64,
        hide: Hide = "cell",
        features: Count | None = None,
        repeats: Count = 2,
        batch_size: Count | None = None,
        seed: CountOrZero = 0,
    ) -> None:
        super().__init__(samples, features, repeats, batch_size, seed)
        self.segments, self.hide = segments, hide

    @torch.no_grad()
    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        segments = cell_superpixels(images, self.segments)
        size = self.passes(images)
        answers = [
            partial(ask_parts, classifier, image, other, parts, batch_size=size)
            for image, other, parts in zip(
                images, hidden(images, self.hide), segments.to(images.device), strict=True
            )
        ]
        counts = (segments.flatten(1).amax(dim=1) + 1).tolist()
        return self._weighed(answers, counts, segments, "superpixel")


class PatchLIME(_Local):
    """Weights of patch embeddings, for classifiers that have them.

    An absent patch is the mean of the training cells' embeddings at its place. What map and checks
    are is as in :class:`LIME`.

    Args:
        samples: token sets asked for a cell in each repeat, ``samples`` times ``repeats`` in all.
        features: how many weights lime keeps, the others being 0; all where it is None.
        repeats: fits a cell, each with a seed of its own; with 1 there is no ``stability``.
        batch_size: token sets a pass; what suits the device and the images where it is None.
        seed: of the first repeat; it draws the same whatever else is explained.
        when_possible: leave classifiers without patches out rather than refuse them.
    """

    name = "lime_patches"
    needs_patches = True

    def __init__(
        self,
        samples: Draws = 1000,
        features: Count | None = None,
        repeats: Count = 2,
        batch_size: Count | None = None,
        seed: CountOrZero = 0,
        when_possible: bool = False,
    ) -> None:
        super().__init__(samples, features, repeats, batch_size, seed)
        self.when_possible = when_possible

    @torch.no_grad()
    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        size = self.passes(images)
        tokens, other = compared_tokens(classifier, images, background, size)
        patches = tokens.shape[1]
        answers = [partial(ask_tokens, classifier, one, other, batch_size=size) for one in tokens]
        segments = patch_segments(images.shape[-1], patches, len(images))
        return self._weighed(answers, [patches] * len(images), segments, "patch")


def _agreement(weights: Sequence[npt.NDArray[np.float64]]) -> float:
    """Mean rank correlation of any two; NaN where one of them has no ranks."""
    if any(one.min() == one.max() for one in weights):
        return float("nan")
    return float(np.mean([spearmanr(a, b).statistic for a, b in combinations(weights, 2)]))
