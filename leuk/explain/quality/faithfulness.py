"""Faithfulness of maps to the classifier: deletion and insertion, infidelity, sensitivity.

The classifier predicts in batches on its device; maps are on the CPU, for the predicted class.

Deletion and insertion curves hide or show pixels within the cell mask only. The background is black
already, so over the whole image they would reward maps that merely locate the cell. Attribution on
the background is covered by :mod:`.regions`, and by infidelity, whose sums include it.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max
from skimage.filters import sobel
from torch import Tensor
from torch.nn import functional as F

from leuk.classifiers.base import Classifier
from leuk.data.decode import cell_mask
from leuk.explain.base import Attribution, Explainer, evaluation_mode, log_odds, signs
from leuk.explain.perturb import predict_log_odds
from leuk.metrics.arrays import Floats


@dataclass(frozen=True, eq=False)
class Case:
    """A trained classifier and the images on which its explanations are checked."""

    classifier: Classifier
    images: Tensor  # (B, 3, R, R) in [0, 1], on the classifier's device
    target: Tensor  # int64 (B,) on the CPU, class that each image is explained for
    background: Tensor  # (K, 3, R, R) training images in [0, 1], on the classifier's device
    batch_size: int = 64
    seed: int = 0

    def first(self, count: int) -> "Case":
        """Return the case of the first ``count`` images."""
        return replace(self, images=self.images[:count], target=self.target[:count])

    def predict(self, indices: Tensor, hides: Callable[[Tensor], Tensor], other: Tensor) -> Tensor:
        """Predict log-odds of leukemia, on the CPU, of images of which pixels are replaced.

        ``indices (N,)`` of the images are on the device; ``hides`` returns the pixels to replace by
        those of ``other``, ``bool (b, R, R)``, from positions in ``indices``.
        """
        outputs = []
        with evaluation_mode(self.classifier), torch.no_grad():
            for at in torch.arange(len(indices), device=indices.device).split(self.batch_size):
                own = indices[at]
                shown = torch.where(hides(at)[:, None], other[own], self.images[own])
                outputs.append(log_odds(self.classifier(shown)))
        return torch.cat(outputs).cpu()


# --- Control maps that ignore the classifier: the baseline that an explanation has to beat


class Control(Explainer):
    """Unsigned map that ``draw`` computes from an image ``(3, R, R)`` alone, both on the CPU."""

    def __init__(self, name: str, draw: Callable[[Tensor], Tensor]) -> None:
        self.name, self.draw = name, draw

    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        maps = torch.stack([self.draw(image) for image in images.cpu()])
        return Attribution(maps, "pixel", signed=False)


def controls(seed: int) -> dict[str, Control]:
    """Build the controls by name; the noise of two of them depends on ``seed``."""
    draws: dict[str, Callable[[Tensor], Tensor]] = {
        "random": partial(_noise, points=8, seed=seed),  # as coarse as superpixels
        "random_pixels": partial(_noise, points=None, seed=seed),
        "center": _bell,
        "edges": _edges,
    }
    return {name: Control(name, draw) for name, draw in draws.items()}


def _noise(image: Tensor, points: int | None, seed: int) -> Tensor:
    """Uniform noise at ``points`` per side, interpolated, or at every pixel.

    It is drawn anew for each cell mask, so that noise on pixels does not change it.
    """
    mask, side = cell_mask(image[None])[0].numpy().tobytes(), image.shape[-1]
    generator = torch.Generator().manual_seed(zlib.crc32(mask, seed))
    drawn = points or side
    noise = torch.rand((1, 1, drawn, drawn), generator=generator)
    return F.interpolate(noise, (side, side), mode="bilinear")[0, 0]


def _bell(image: Tensor) -> Tensor:
    """Gaussian around the center, where C-NMC has its cells; a fifth of the side is its width."""
    side = image.shape[-1]
    offset = (torch.arange(side) - (side - 1) / 2) / (0.2 * side)
    bell = torch.exp(-(offset**2) / 2)
    return bell[:, None] * bell


def _edges(image: Tensor) -> Tensor:
    """Sobel magnitude of the brightness."""
    return torch.from_numpy(np.asarray(sobel(image.float().mean(dim=0).numpy()), np.float32))


# --- Deletion and insertion


class Curves(NamedTuple):
    """Probability of a class as pixels are hidden or shown, highest map values first."""

    shares: Floats  # (S + 1,), shares of the cell's pixels from 0 to 1
    deletion: Floats  # (B, S + 1), probability with that share hidden
    insertion: Floats  # (B, S + 1), probability with only that share of the cell shown


def curves(case: Case, other: Tensor, maps: Tensor, steps: int = 16) -> Curves:
    """Compute deletion and insertion curves (Petsiuk et al. 2018, RISE, section 4.2).

    Costs ``2 * B * steps`` forward passes. Pixels with equal values, such as those of a superpixel,
    are in random order. ``other (B, 3, R, R)``, on the device, replaces hidden pixels; ``maps
    (B, R, R)``, on the CPU, are finite.
    """
    device, count = case.images.device, len(case.images)
    turns = _turns(maps, cell_mask(case.images).cpu(), steps, case.seed).to(device)
    levels = torch.arange(steps, device=device).repeat(2 * count)
    deleting = torch.tensor([True, False], device=device).repeat_interleave(steps).repeat(count)
    indices = torch.arange(count, device=device).repeat_interleave(2 * steps)

    def hides(at: Tensor) -> Tensor:
        turn = turns[indices[at]]
        gone = (turn < levels[at, None, None]) == deleting[at, None, None]
        return gone & (turn >= 0)

    odds = case.predict(indices, hides, other)
    toward = odds * signs(case.target, count).repeat_interleave(2 * steps)
    down, up = toward.double().sigmoid().view(count, 2, steps).unbind(dim=1)
    # Deletion ends with the image that insertion starts from, and vice versa.
    deletion, insertion = (torch.cat([down, up[:, :1]], 1), torch.cat([up, down[:, :1]], 1))
    return Curves(np.linspace(0, 1, steps + 1), deletion.numpy(), insertion.numpy())


def _turns(maps: Tensor, masks: Tensor, steps: int, seed: int) -> Tensor:
    """Step at which each pixel is hidden or shown, ``int16 (B, R, R)``; -1 outside the mask."""
    values, inside = maps.flatten(1), masks.flatten(1)
    pixels = values.shape[1]
    # A stable sort of shuffled pixels orders ties randomly, the same way for every image.
    shuffle = torch.randperm(pixels, generator=torch.Generator().manual_seed(seed))
    shuffled = values.masked_fill(~inside, -torch.inf)[:, shuffle]
    order = shuffle[shuffled.argsort(dim=1, descending=True, stable=True)]
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(pixels).expand_as(order))
    turns = rank * steps // inside.sum(dim=1, keepdim=True).clamp(min=1)
    return turns.masked_fill(~inside, -1).to(torch.int16).view(maps.shape)


# --- Infidelity


class Removals(NamedTuple):
    """Squares removed from images and their effect on the classifier, shared by all maps."""

    boxes: Tensor  # int64 (B, N, 4): first row, end row (exclusive), first column, end column
    changes: Tensor  # float32 (B, N), decrease of the log-odds of the target


def removals(case: Case, other: Tensor, samples: int = 32) -> Removals:
    """Remove squares around random pixels of each cell, 1/8 to 1/3 of the image's side.

    Square removal as in Yeh et al. 2019, section 3.2. Costs ``B * (samples + 1)`` forward passes,
    for any number of maps. ``other (B, 3, R, R)``, on the device, replaces removed pixels.
    """
    images, device, count = case.images, case.images.device, len(case.images)
    boxes = _boxes(cell_mask(images).cpu(), samples, case.seed)
    flat = boxes.to(device).flatten(0, 1)[:, :, None]
    line = torch.arange(images.shape[-1], device=device)

    def hides(at: Tensor) -> Tensor:
        top, bottom, left, right = flat[at].unbind(dim=1)
        rows, columns = (line >= top) & (line < bottom), (line >= left) & (line < right)
        return rows[:, :, None] & columns[:, None]

    # In bfloat16 the effect of a small square would be lost in rounding.
    with torch.autocast(device.type, enabled=False):
        with evaluation_mode(case.classifier):
            whole = predict_log_odds(case.classifier, images, case.batch_size).cpu()
        indices = torch.arange(count, device=device).repeat_interleave(samples)
        fallen = whole[:, None] - case.predict(indices, hides, other).view(count, samples)
    return Removals(boxes, fallen * signs(case.target, count)[:, None])


def _boxes(masks: Tensor, samples: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    side = masks.shape[-1]
    flat = masks.flatten(1).float()
    flat[~masks.flatten(1).any(dim=1)] = 1  # without a cell, any pixel will do
    middles = flat.multinomial(samples, replacement=True, generator=generator)
    middles = torch.stack([middles // side, middles % side], dim=2)
    share = torch.rand((len(masks), samples, 1), generator=generator)
    half = ((1 / 8 + (1 / 3 - 1 / 8) * share) * side / 2).round().long().clamp(min=1)
    ends = torch.stack([middles - half, middles + half], dim=3).clamp(0, side)
    return ends.flatten(2)


def infidelity(maps: Tensor, removed: Removals) -> tuple[Floats, Floats]:
    """Infidelity of maps (Yeh et al. 2019): error of their sums in predicting the removals' effect.

    Does not run the classifier: Captum gets a linear function that returns the measured changes,
    with the index of the removed square as its input. ``maps (B, R, R)``, on the CPU, are finite
    and for the target of the removals.

    Returns:
        Two ``float64 (B,)``. The first, in [0, 1], lower is better, is the share of the mean
        squared change that the map leaves unexplained after optimal scaling. Negative factors,
        which Captum's ``normalize`` allows, are excluded, because they credit the opposite map. NaN
        if no removal changed the output. The second is Captum's infidelity in squared log-odds,
        meaningful only for maps in log-odds.
    """
    sums = maps.double().cumsum(dim=1).cumsum(dim=2)
    corners = F.pad(sums, (1, 0, 1, 0))
    top, bottom, left, right = removed.boxes.unbind(dim=2)
    at = torch.arange(len(maps))[:, None]
    predicted = corners[at, bottom, right] + corners[at, top, left]
    predicted = predicted - corners[at, top, right] - corners[at, bottom, left]
    changes = removed.changes.double()
    raw, opposite = _captum(predicted, changes), _captum(-predicted, changes)
    fitted, none = _captum(predicted, changes, normalize=True), _captum(0 * predicted, changes)
    best = torch.where(raw < opposite, fitted, none).clamp(min=0)
    return (best / none).numpy(), raw.numpy()


def _captum(predicted: Tensor, changes: Tensor, normalize: bool = False) -> Tensor:
    """Captum's infidelity, ``(B,)``, of predicted and measured changes, both ``(B, N)``."""
    count, samples = predicted.shape
    each = torch.eye(samples, dtype=predicted.dtype).repeat(count, 1)
    found: Tensor = captum_infidelity(
        lambda gone, change: -(gone * change).sum(dim=1),
        lambda gone: (each, gone + each),
        torch.zeros_like(predicted),
        predicted,
        additional_forward_args=(changes,),
        n_perturb_samples=samples,
        normalize=normalize,
    )
    return found


# --- Sensitivity


def sensitivity(case: Case, explainer: Explainer, samples: int = 4, radius: float = 0.02) -> Floats:
    """Sensitivity of maps to slight pixel noise (Yeh et al. 2019), by Captum; lower is better.

    Costs ``B * (samples + 1)`` explanations. The noise is uniform, with amplitude ``radius``,
    within the cell mask; pixels that it would move out of the mask do not change.

    Returns:
        ``float64 (B,)``, the largest Euclidean distance between the maps with and without noise,
        over the norm of the map without noise.
    """
    generator, count = torch.Generator().manual_seed(case.seed), len(case.images)

    def noisy(clean: Tensor, width: float) -> Tensor:
        noise = torch.rand(clean.shape, generator=generator).to(clean.device) * 2 - 1
        moved = (clean + width * noise).clamp(0, 1)
        stays = cell_mask(clean) & cell_mask(moved)
        return torch.where(stays[:, None], moved, clean)

    def explain(inputs: Tensor | tuple[Tensor, ...], target: Tensor) -> tuple[Tensor]:
        batch = inputs[0] if isinstance(inputs, tuple) else inputs
        return (explainer.attribute(case.classifier, batch, target, case.background).maps,)

    found: Tensor = sensitivity_max(
        explain,
        case.images,
        noisy,
        perturb_radius=radius,
        n_perturb_samples=samples,
        max_examples_per_batch=min(max(case.batch_size, count), samples * count),
        target=case.target,
    )
    return found.double().numpy()
