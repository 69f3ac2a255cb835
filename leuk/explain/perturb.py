"""Predictions for images with hidden segments, assembled in batches on the classifier's device.

SHAP, LIME and the deletion curves need thousands of such images per explained image. Only the
presence of segments is transferred from the CPU.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from leuk.classifiers.base import Classifier
from leuk.data.decode import cell_mask
from leuk.explain.base import log_odds

Hide = Literal["cell", "black", "blur"]
"""Replacement of hidden pixels: the cell's mean color, the black background, or a blurred image."""

Answer = Callable[[Tensor], Tensor]
"""Function from presence ``bool (S, K)`` of segments to log-odds of leukemia, ``float32 (S,)``."""


def hidden(images: Tensor, how: Hide) -> Tensor:
    """Hide every pixel of images ``(B, 3, R, R)``.

    ``cell`` replaces the cell's pixels by their mean color, which keeps the mask and thereby the
    size of the cell. ``black`` makes holes. ``blur`` keeps coarse structure.
    """
    if how == "black":
        return torch.zeros_like(images)
    if how == "blur":
        side = images.shape[-1]
        sigma = max(1.0, side / 8)
        kernel = min(2 * int(3 * sigma) + 1, side - 1 + side % 2)
        # On a CPU, a single blur of channels-last images in bfloat16 takes minutes.
        with torch.autocast(images.device.type, enabled=False):
            # Blur rows, then columns: at 224 px a square kernel would have 28,561 weights.
            rows = gaussian_blur(images, [kernel, 1], [sigma, sigma])
            blurred: Tensor = gaussian_blur(rows, [1, kernel], [sigma, sigma])
        return blurred
    mask = cell_mask(images)[:, None].float()
    color = (images * mask).sum(dim=(2, 3)) / mask.sum(dim=(2, 3)).clamp(min=1)
    return color[:, :, None, None] * mask


@torch.no_grad()
def predict_log_odds(classifier: Classifier, images: Tensor, batch_size: int) -> Tensor:
    """Predict log-odds of leukemia, ``float32 (B,)`` on the device, of unchanged images."""
    return torch.cat([log_odds(classifier(batch)) for batch in images.split(batch_size)])


def image_answers(
    classifier: Classifier, images: Tensor, others: Tensor, segments: Tensor, batch_size: int
) -> list[Answer]:
    """Answers for images ``(B, 3, R, R)``; pixels of absent segments are those of ``others``.

    ``segments int64 (B, R, R)`` are 0 to K - 1; -1 is always present. All are on the device.
    """

    @torch.no_grad()
    def answer(image: Tensor, other: Tensor, parts: Tensor, presence: Tensor) -> Tensor:
        always = torch.ones(1, dtype=torch.bool, device=image.device)
        outputs = []
        for batch in presence.split(batch_size):
            present = torch.cat([batch.to(image.device), always.expand(len(batch), 1)], dim=1)
            shown = present[:, parts.flatten()].view(len(batch), 1, *parts.shape)  # -1: last column
            outputs.append(log_odds(classifier(torch.where(shown, image, other))))
        return torch.cat(outputs)

    return [partial(answer, *own) for own in zip(images, others, segments, strict=True)]


def token_answers(
    classifier: Classifier, tokens: Tensor, other: Tensor, batch_size: int
) -> list[Answer]:
    """Answers for images with tokens ``(B, N, D)``; ``other (N, D)`` replaces absent tokens."""

    @torch.no_grad()
    def answer(own: Tensor, presence: Tensor) -> Tensor:
        outputs = []
        for batch in presence.split(batch_size):
            present = batch.to(own.device)[:, :, None]
            outputs.append(log_odds(classifier.from_tokens(torch.where(present, own, other))))
        return torch.cat(outputs)

    return [partial(answer, own) for own in tokens]


@torch.no_grad()
def compared_tokens(
    classifier: Classifier, images: Tensor, background: Tensor, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Compute the tokens of images, and the mean token of training images at each position.

    Autocasting is off: they are computed only once, and equal patches keep equal tokens.

    Returns:
        ``(B, N, D)``, and ``float32 (N, D)``, which replaces absent tokens.
    """
    with torch.autocast(images.device.type, enabled=False):
        tokens = torch.cat([classifier.tokens(part) for part in images.split(batch_size)])
        sums = [classifier.tokens(part).float().sum(dim=0) for part in background.split(batch_size)]
        return tokens, torch.stack(sums).sum(dim=0) / len(background)


def spread(values: Tensor, segments: Tensor) -> Tensor:
    """Spread values ``(B, K)`` of segments evenly over their pixels, ``float32 (B, R, R)``.

    ``segments int64 (B, R, R)`` are on the CPU; outside all of them, -1, the map is 0.
    """
    flat = segments.flatten(1)
    sizes = values.new_zeros(len(values), values.shape[1] + 1)
    sizes.scatter_add_(1, flat + 1, torch.ones_like(flat, dtype=values.dtype))
    each = torch.cat([values.new_zeros(len(values), 1), values / sizes[:, 1:].clamp(min=1)], dim=1)
    return each.gather(1, flat + 1).view(segments.shape).float()


def patch_segments(side: int, patches: int, count: int) -> Tensor:
    """Patch of each pixel, ``int64 (count, side, side)``, in a square grid numbered row by row."""
    across = math.isqrt(patches)
    index = torch.arange(side) * across // side
    return (index[:, None] * across + index).repeat(count, 1, 1)
