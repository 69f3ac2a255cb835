"""Control maps that ignore the classifier: the baseline that an explanation has to beat.

A measure of a method is meaningful only in comparison with the controls. Controls implement the
explainer interface, so that every check treats them like a method.
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
    """Unsigned map that depends only on the image, not on the classifier or the target."""

    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        maps = torch.stack([self._map(image) for image in images.cpu()])
        return Attribution(maps, "pixel", signed=False)

    @abstractmethod
    def _map(self, image: Tensor) -> Tensor:
        """Compute the map ``float32 (R, R)`` of an image ``(3, R, R)``, on the CPU."""


class RandomControl(Control):
    """Uniform noise, drawn anew for each cell mask.

    The map of an image depends neither on its position in a batch nor on noise within the mask.

    Args:
        blobs: grid points per side of the noise, interpolated between, so that the default is as
            coarse as superpixels; 0 draws every pixel.
        seed: seed of the noise.
    """

    def __init__(self, blobs: CountOrZero = 8, seed: CountOrZero = 0) -> None:
        self.name = "random" if blobs else "random_pixels"
        self.blobs, self.seed = blobs, seed

    def _map(self, image: Tensor) -> Tensor:
        mask = cell_mask(image[None])[0].numpy().tobytes()
        generator = torch.Generator().manual_seed(zlib.crc32(mask, self.seed))
        side = image.shape[-1]
        drawn = self.blobs or side
        noise = torch.rand((1, 1, drawn, drawn), generator=generator)
        return F.interpolate(noise, (side, side), mode="bilinear")[0, 0]


class CenterControl(Control):
    """Gaussian around the center of the image, where C-NMC has its cells.

    Args:
        width: standard deviation, as a share of the image's side.
    """

    name = "center"

    def __init__(self, width: Positive = 0.2) -> None:
        self.width = width

    def _map(self, image: Tensor) -> Tensor:
        side = image.shape[-1]
        offset = (torch.arange(side) - (side - 1) / 2) / (self.width * side)
        bell = torch.exp(-(offset**2) / 2)
        return bell[:, None] * bell


class EdgesControl(Control):
    """Sobel magnitude of the brightness."""

    name = "edges"

    def _map(self, image: Tensor) -> Tensor:
        found = sobel(image.float().mean(dim=0).numpy())
        return torch.from_numpy(np.asarray(found, np.float32))


def all_controls(seed: int) -> dict[str, Explainer]:
    """Build the controls ``random``, ``random_pixels``, ``center`` and ``edges``, by name.

    Args:
        seed: seed of the noise.
    """
    controls = (
        RandomControl(seed=seed),
        RandomControl(blobs=0, seed=seed),
        CenterControl(),
        EdgesControl(),
    )
    return {control.name: control for control in controls}
