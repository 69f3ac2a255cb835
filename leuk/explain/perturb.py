"""What a classifier says of images with parts hidden, made and asked on its device in batches.

SHAP, LIME and the deletion curves ask thousands of such images a cell. Only which parts are present
comes from the CPU: the images are put together where the classifier is.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from leuk.classifiers.classifier import Classifier
from leuk.data.decode import LIT
from leuk.explain.explainer import log_odds

Hide = Literal["cell", "black", "blur"]
"""How a hidden part looks: the cell's mean colour, the data's own background, or out of focus."""

_BLUR = 8
"""The image's side over this is the width of the blur."""


def cell_mask(images: Tensor) -> Tensor:
    """Pixels of the cell, ``bool (B, R, R)``: not black, as its segmentation left it."""
    return images.amax(dim=1) > LIT / 255


def hidden(images: Tensor, how: Hide) -> Tensor:
    """Images ``(B, 3, R, R)`` of which every part is hidden.

    ``cell`` keeps the silhouette: a hidden part has the mean colour of this cell, so that it tells
    nothing of its own while the cell stays as large as it is. ``black`` makes holes. ``blur``
    leaves what is coarse.
    """
    if how == "black":
        return torch.zeros_like(images)
    if how == "blur":
        side = images.shape[-1]
        sigma = max(1.0, side / _BLUR)
        kernel = min(2 * int(3 * sigma) + 1, side - 1 + side % 2)
        # In bfloat16 a CPU takes minutes for one blur of channels-last images.
        with torch.autocast(images.device.type, enabled=False):
            # One direction after the other: at 224 px a square kernel would have 28,561 weights.
            rows = gaussian_blur(images, [kernel, 1], [sigma, sigma])
            blurred: Tensor = gaussian_blur(rows, [1, kernel], [sigma, sigma])
        return blurred
    mask = cell_mask(images)[:, None].float()
    colour = (images * mask).sum(dim=(2, 3)) / mask.sum(dim=(2, 3)).clamp(min=1)
    return colour[:, :, None, None] * mask


@torch.no_grad()
def ask(classifier: Classifier, images: Tensor, batch_size: int) -> Tensor:
    """Log-odds of leukemia, ``float32 (B,)`` on the device, of images as they are."""
    return torch.cat([log_odds(classifier(part)) for part in images.split(batch_size)])


@torch.no_grad()
def ask_parts(
    classifier: Classifier,
    image: Tensor,
    other: Tensor,
    segments: Tensor,
    presence: Tensor,
    batch_size: int,
) -> Tensor:
    """Log-odds of leukemia of one image with parts of it replaced.

    Args:
        classifier: in evaluation mode.
        image: ``(3, R, R)`` in [0, 1], on the classifier's device.
        other: ``(3, R, R)``, what shows where a part is absent.
        segments: ``int64 (R, R)``, the part of each pixel, 0 to K - 1; -1 is always present.
        presence: ``bool (S, K)``, on any device: which parts are there.
        batch_size: images a pass.

    Returns:
        ``float32 (S,)`` on the device.
    """
    segments = segments.to(image.device).flatten()
    always = torch.ones(1, dtype=torch.bool, device=image.device)
    answers = []
    for part in presence.split(batch_size):
        there = torch.cat([part.to(image.device), always.expand(len(part), 1)], dim=1)
        shown = there[:, segments].view(len(part), 1, *image.shape[1:])  # -1 is the last column
        answers.append(log_odds(classifier(torch.where(shown, image, other))))
    return torch.cat(answers)


@torch.no_grad()
def ask_tokens(
    classifier: Classifier, tokens: Tensor, other: Tensor, presence: Tensor, batch_size: int
) -> Tensor:
    """Log-odds of leukemia of one image's patch tokens with some of them replaced.

    Args:
        classifier: in evaluation mode, with patches.
        tokens: ``(N, D)`` of :meth:`tokens`.
        other: ``(N, D)``, what stands where a patch is absent.
        presence: ``bool (S, N)``, on any device.
        batch_size: images a pass.

    Returns:
        ``float32 (S,)`` on the device.
    """
    answers = []
    for part in presence.split(batch_size):
        there = part.to(tokens.device)[:, :, None]
        answers.append(log_odds(classifier.from_tokens(torch.where(there, tokens, other))))
    return torch.cat(answers)


@torch.no_grad()
def mean_tokens(classifier: Classifier, background: Tensor, batch_size: int) -> Tensor:
    """Mean tokens ``(N, D)`` of training cells, place by place: an absent patch's stand-in."""
    parts = [classifier.tokens(part).float().sum(dim=0) for part in background.split(batch_size)]
    return torch.stack(parts).sum(dim=0) / len(background)


@torch.no_grad()
def compared_tokens(
    classifier: Classifier, images: Tensor, background: Tensor, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Tokens ``(B, N, D)`` of images, and :func:`mean_tokens` of training cells ``(N, D)``.

    Whatever precision is around: made once, they cost nothing to be exact, and equal patches stay
    equal.
    """
    with torch.autocast(images.device.type, enabled=False):
        tokens = torch.cat([classifier.tokens(part) for part in images.split(batch_size)])
        return tokens, mean_tokens(classifier, background, batch_size)


def spread(values: Tensor, segments: Tensor) -> Tensor:
    """Values ``(B, K)`` of parts as maps ``float32 (B, R, R)``, each spread over its pixels.

    Args:
        values: of part 0 to K - 1 of each image, on the CPU.
        segments: ``int64 (B, R, R)``, -1 where a pixel belongs to none; there the map is 0.
    """
    flat = segments.flatten(1)
    sizes = values.new_zeros(len(values), values.shape[1] + 1)
    sizes.scatter_add_(1, flat + 1, torch.ones_like(flat, dtype=values.dtype))
    each = torch.cat([values.new_zeros(len(values), 1), values / sizes[:, 1:].clamp(min=1)], dim=1)
    return each.gather(1, flat + 1).view(segments.shape).float()


def patch_segments(side: int, patches: int, count: int) -> Tensor:
    """The patch of each pixel, ``int64 (count, side, side)``, of a square grid row by row.

    Args:
        side: pixels a side of the image.
        patches: how many in all; a square number.
        count: of images.
    """
    across = math.isqrt(patches)
    index = torch.arange(side) * across // side
    return (index[:, None] * across + index).repeat(count, 1, 1)
