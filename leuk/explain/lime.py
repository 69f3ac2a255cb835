"""LIME (Ribeiro et al. 2016), by the lime library, on superpixels of the cell and on patches.

lime draws which segments (superpixels or patches) are present, weights the draws by their
similarity to the whole image, and fits a ridge regression to the classifier's output; the weight of
a segment is its coefficient. Only the predictions are ours: perturbed images are assembled on the
classifier's device in large batches (:mod:`leuk.explain.perturb`), not ten at a time in a loop.

The regression fits log-odds. With probabilities, all weights vanish once a classifier is confident:
in float32 the softmax of log-odds above 17 is 1.0 whichever segments are present. This, or
perturbed images that do not differ (in [0, 1], then cast to integers), explains the zero weights in
the thesis's notebooks. lime's feature selection does not: it keeps the largest weights.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from lime.lime_image import LimeImageExplainer
from pydantic import Field
from scipy.stats import spearmanr
from skimage.segmentation import slic
from torch import Tensor

from leuk.classifiers.base import Classifier
from leuk.config.schema import Count, CountOrZero
from leuk.data.decode import cell_mask
from leuk.explain.base import Attribution, Explainer, Unit
from leuk.explain.perturb import (
    Answer,
    Hide,
    compared_tokens,
    hidden,
    image_answers,
    patch_segments,
    spread,
    token_answers,
)

Draws = Annotated[int, Field(ge=2)]
"""Number of samples; a linear fit needs 2 or more."""


def cell_superpixels(images: Tensor, count: int) -> Tensor:
    """Superpixels of each cell, by SLIC within its mask (Achanta et al. 2012; Irving 2016).

    There are approximately ``count`` per image, at most one per pixel of the cell. They do not
    depend on the other images of the batch.

    Returns:
        ``int64 (B, R, R)`` on the CPU: 0 to K - 1, all used, within a cell with K superpixels; -1
        on the background.
    """
    masks = cell_mask(images).cpu().numpy()
    pixels = images.permute(0, 2, 3, 1).float().cpu().numpy()
    found = np.full(masks.shape, -1, dtype=np.int64)
    # At the paper's compactness of 10, and without smoothing, pixel noise in small images merges 16
    # superpixels to a few; at 30, they become tiles that ignore the cell's structure.
    options = {"compactness": 20.0, "sigma": 1.0, "start_label": 1, "channel_axis": -1}
    for image, mask, segments in zip(pixels, masks, found, strict=True):
        if mask.any():
            labels = slic(image, count, mask=mask, **options)
            # Pixels without a cluster, such as a mask of a single pixel, form one more superpixel.
            segments[mask] = np.unique(labels[mask], return_inverse=True)[1]
    return torch.from_numpy(found)


class PresenceLime(LimeImageExplainer):  # type: ignore[misc] # lime has no types
    """lime's image explainer on presence vectors instead of images.

    The distances, the kernel and the fit are lime's. Its input is a strip with a pixel per segment.
    ``features`` is the number of weights to keep; None keeps all and skips lime's selection.
    """

    def __init__(self, features: int | None, seed: int) -> None:
        chosen = "none" if features is None else "auto"
        super().__init__(feature_selection=chosen, random_state=seed)
        self.features = features

    def fit(
        self, answer: Answer, parts: int, samples: int
    ) -> tuple[npt.NDArray[np.float64], float]:
        """Fit a linear model to the log-odds around an image with ``parts`` segments.

        Returns:
            Weights ``float64 (K,)``, the change of the log-odds by the presence of each segment,
            and lime's score R², the weighted share of explained variance. R² is computed on the
            training samples of the fit and therefore optimistic if they are few. NaN if all
            log-odds are equal.
        """
        found = self.explain_instance(
            np.ones((1, parts, 3)),
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
        return weights, float(found.score) if weights.any() else float("nan")

    def data_labels(
        self,
        image: npt.NDArray[Any],
        fudged_image: npt.NDArray[Any],
        segments: npt.NDArray[Any],
        classifier_fn: Answer,
        num_samples: int,
        batch_size: int = 10,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Draw presence ``(S, K)``, with all segments in the first row, and predict ``(S, 1)``.

        The first prediction is subtracted from all. The intercept absorbs it, and predictions that
        do not vary become exactly 0, as do their weights.
        """
        presence = self.random_state.randint(0, 2, (num_samples, segments.size))
        presence[0] = 1
        predicted = classifier_fn(torch.from_numpy(presence).bool()).double().cpu().numpy()
        return presence, (predicted - predicted[0])[:, None]


class _Local(Explainer):
    """Weights of segments in local linear models, with their fit and stability."""

    quantity = "weight in a linear fit to the log-odds of leukemia"
    thesis_figure = 11

    def __init__(
        self,
        samples: Draws = 1000,
        features: Count | None = None,
        repeats: Count = 2,
        batch_size: Count | None = None,
        seed: CountOrZero = 0,
        when_possible: bool = False,
    ) -> None:
        self.samples, self.features, self.repeats = samples, features, repeats
        self.batch_size, self.seed, self.when_possible = batch_size, seed, when_possible

    def passes(self, images: Tensor) -> int:
        """Images per forward pass, from their size and device unless ``batch_size`` is set."""
        most = 64 if images.device.type == "cpu" else 256  # of 224 px; more are no faster
        return self.batch_size or max(1, most * 224**2 // images.shape[-1] ** 2)

    def _weighed(
        self, answers: Sequence[Answer], counts: Sequence[int], segments: Tensor, unit: Unit
    ) -> Attribution:
        """Convert the weights of all images' segments ``(B, R, R)`` to maps.

        ``counts`` are the numbers of segments; the map of an image without any is zero.
        """
        values = torch.zeros(len(counts), max(counts), dtype=torch.float64)
        checks = {"r2": torch.full((len(counts),), torch.nan)}
        if self.repeats > 1:
            checks["stability"] = checks["r2"].clone()
        for position, (answer, parts) in enumerate(zip(answers, counts, strict=True)):
            if not parts:
                continue
            fits = [
                PresenceLime(self.features, self.seed + turn).fit(answer, parts, self.samples)
                for turn in range(self.repeats)
            ]
            values[position, :parts] = torch.from_numpy(fits[0][0])
            checks["r2"][position] = fits[0][1]
            if self.repeats > 1:
                checks["stability"][position] = stability([weights for weights, _ in fits])
        return Attribution(spread(values, segments), unit, checks=checks, segments=segments)


class LIME(_Local):
    """LIME on superpixels of the cell, for every classifier.

    The map comes from the first repeat. ``checks["r2"]`` belongs to it, see
    :meth:`PresenceLime.fit`; ``checks["stability"]`` is the mean rank correlation of the weights
    between repeats, -1 to 1. Both are NaN if the image has no cell, or if hiding superpixels
    changes nothing.

    Args:
        samples: perturbed images per image and repeat, so ``samples * repeats`` in total.
        segments: approximate number of superpixels.
        hide: replacement of hidden superpixels, see :func:`leuk.explain.perturb.hidden`.
        features: number of weights lime keeps, the others being 0; None keeps all.
        repeats: fits per image, each with its own seed; ``stability`` needs at least 2.
        batch_size: images per pass; None chooses by device and image size.
        seed: seed of the first repeat.
    """

    name = "lime"
    title = "LIME, superpixels"

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
        segments, size = cell_superpixels(images, self.segments), self.passes(images)
        others = hidden(images, self.hide)
        answers = image_answers(classifier, images, others, segments.to(images.device), size)
        counts = (segments.flatten(1).amax(dim=1) + 1).tolist()
        return self._weighed(answers, counts, segments, "superpixel")


class PatchLIME(_Local):
    """LIME on patch embeddings, for classifiers that have them.

    An absent patch is replaced by the mean embedding of the training images at its position. For
    map, checks and arguments see :class:`LIME`; ``samples`` and ``batch_size`` count token
    sequences, and ``when_possible`` skips classifiers without patches instead of refusing them.
    """

    name = "lime_patches"
    title = "LIME, patches"
    needs_patches = True
    needs_background = True

    @torch.no_grad()
    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        size = self.passes(images)
        tokens, other = compared_tokens(classifier, images, background, size)
        patches = tokens.shape[1]
        answers = token_answers(classifier, tokens, other, size)
        segments = patch_segments(images.shape[-1], patches, len(images))
        return self._weighed(answers, [patches] * len(images), segments, "patch")


def stability(weights: Sequence[npt.NDArray[np.float64]]) -> float:
    """Mean rank correlation over all pairs of weights ``(K,)``; NaN if any are constant."""
    if any(one.min() == one.max() for one in weights):
        return float("nan")
    return float(np.mean([spearmanr(a, b).statistic for a, b in combinations(weights, 2)]))
