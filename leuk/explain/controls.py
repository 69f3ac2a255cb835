"""Maps that ignore the classifier: what an explanation has to beat in every table of checks.

A number of a method means something next to theirs alone. They keep the contract of explainers, so
that every check treats them as it treats a method.
"""

import zlib
from abc import abstractmethod

import numpy as np
import torch
from skimage.filters import sobel
from torch import Tensor
from torch.nn import functional as F

from leuk.classifiers.classifier import Classifier
from leuk.config.ranges import CountOrZero, Positive
from leuk.explain.explainer import Attribution, Explainer
from leuk.explain.perturb import cell_mask


class Control(Explainer):
    """A map of the image alone, of no class: never below 0, the same whatever the weights."""

    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        maps = torch.stack([self._map(image) for image in images.cpu()])
        return Attribution(maps, "pixel", signed=False)

    @abstractmethod
    def _map(self, image: Tensor) -> Tensor:
        """``float32 (R, R)`` of ``(3, R, R)``, on the CPU."""


class RandomControl(Control):
    """Uniform noise, drawn anew for each silhouette.

    The same cell has the same map wherever it stands in a batch, and keeps it when noise is added
    to its pixels.

    Args:
        blobs: places a side that are drawn, with what is between them interpolated: as coarse as
            superpixels are; 0 draws every pixel.
        seed: of the noise.
    """

    def __init__(self, blobs: CountOrZero = 8, seed: CountOrZero = 0) -> None:
        self.name = "random" if blobs else "random_pixels"
        self.blobs, self.seed = blobs, seed

    def _map(self, image: Tensor) -> Tensor:
        silhouette = cell_mask(image[None])[0].numpy().tobytes()
        generator = torch.Generator().manual_seed(zlib.crc32(silhouette, self.seed))
        side = image.shape[-1]
        drawn = self.blobs or side
        noise = torch.rand((1, 1, drawn, drawn), generator=generator)
        return F.interpolate(noise, (side, side), mode="bilinear")[0, 0]


class CentreControl(Control):
    """A Gaussian about the middle of the image, where cells are.

    Args:
        width: its standard deviation, as a share of the image's side.
    """

    name = "centre"

    def __init__(self, width: Positive = 0.2) -> None:
        self.width = width

    def _map(self, image: Tensor) -> Tensor:
        side = image.shape[-1]
        away = (torch.arange(side) - (side - 1) / 2) / (self.width * side)
        bell = torch.exp(-(away**2) / 2)
        return bell[:, None] * bell


class EdgesControl(Control):
    """Sobel magnitude of the brightness: what an edge detector would call important."""

    name = "edges"

    def _map(self, image: Tensor) -> Tensor:
        found = sobel(image.float().mean(dim=0).numpy())
        return torch.from_numpy(np.asarray(found, np.float32))


def all_controls(seed: int) -> dict[str, Explainer]:
    """Every control by name: ``random``, ``random_pixels``, ``centre`` and ``edges``.

    Args:
        seed: of the noise.
    """
    controls = (
        RandomControl(seed=seed),
        RandomControl(blobs=0, seed=seed),
        CentreControl(),
        EdgesControl(),
    )
    return {control.name: control for control in controls}
