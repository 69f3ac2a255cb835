"""The contract of every explanation method: one verb, one result.

What is explained is the log-odds of leukemia, the difference of a classifier's two logits: the
decision depends on nothing else. The log-odds of the other class are its negative.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from leuk.classifiers.classifier import Classifier
from leuk.data.labels import Label
from leuk.errors import ConfigError, DataError

Unit = Literal["pixel", "superpixel", "patch"]
"""What one independent value of a map stands for."""

Target = int | Tensor
"""A :class:`leuk.data.labels.Label`, or one for each image, ``int64 (B,)``."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """Where a decision came from.

    Attributes:
        maps: ``float32 (B, R, R)`` on the CPU; positive speaks for the target class. The value of a
            superpixel or patch is spread evenly over its pixels, so that a map's sum over any part
            of the image is that part's value.
        unit: what one independent value of a map stands for.
        seconds: how long the whole batch took.
        checks: what the method says of itself, by name: ``float32 (B,)`` on the CPU.
        segments: ``int64 (B, R, R)`` on the CPU: which superpixel or patch a pixel is part of, -1
            where of none; None where the unit is a pixel.
        signed: whether the method tells evidence for a class from evidence against it; where not,
            a map says how much a place counted, whatever the target.
    """

    maps: Tensor
    unit: Unit
    seconds: float = 0.0
    checks: Mapping[str, Tensor] = field(default_factory=dict)
    segments: Tensor | None = None
    signed: bool = True

    def toward(self, target: Target) -> Tensor:
        """Maps of evidence for ``target``, ``float32 (B, R, R)``, where these are for leukemia."""
        if not self.signed:
            return self.maps
        return self.maps * signs(target, len(self.maps))[:, None, None]

    @property
    def degenerate(self) -> Tensor:
        """``bool (B,)``: maps that are constant (all zero among them) or hold NaN or infinity."""
        flat = self.maps.flatten(1)
        return ~flat.isfinite().all(dim=1) | (flat.amax(dim=1) == flat.amin(dim=1))


class Explainer(ABC):
    """A way to attribute a classifier's decision to parts of the image.

    Attributes:
        name: as files and tables call it.
        needs_patches: whether it explains by patches, which not every classifier has.
    """

    name: str
    needs_patches: bool = False

    def attribute(
        self, classifier: Classifier, images: Tensor, target: Target, background: Tensor
    ) -> Attribution:
        """Explain the log-odds of ``target`` against the other class.

        The classifier is asked about the images as they are, not about turned views of them.

        Args:
            classifier: fitted; its device is used, its weights are left as they are.
            images: ``(B, 3, R, R)`` in [0, 1], on the classifier's device.
            target: what the evidence is for.
            background: ``(K, 3, R, R)`` training cells in [0, 1], on the same device: what a method
                may compare with.

        Raises:
            ConfigError: the method needs patches that the classifier has not.
            DataError: images of another size than the classifier was fitted on.
        """
        self._check(classifier, images, background)
        started = time.perf_counter()
        with as_judged(classifier):
            found = self._explain(classifier, images, background)
        return replace(found, maps=found.toward(target), seconds=time.perf_counter() - started)

    @abstractmethod
    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        """Explain the log-odds of leukemia; the classifier is in evaluation mode."""

    def _check(self, classifier: Classifier, images: Tensor, background: Tensor) -> None:
        side = classifier.hparams.get("resolution", images.shape[-1])
        for what, seen in (("images", images), ("background", background)):
            if seen.ndim != 4 or tuple(seen.shape[1:]) != (3, side, side):
                raise DataError(
                    f"{what} of {tuple(seen.shape)}: this classifier was fitted on images of "
                    f"{side} x {side} px; set data.resolution={side}"
                )
        if self.needs_patches and not classifier.has_patches:
            raise ConfigError(f"explain={self.name}: {classifier.patchless()}")


@contextmanager
def as_judged(classifier: Classifier) -> Iterator[None]:
    """The classifier in evaluation mode with gradients possible; as it was before, afterwards."""
    training = classifier.training
    frozen = [not parameter.requires_grad for parameter in classifier.parameters()]
    classifier.eval().requires_grad_(False)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for parameter, was_frozen in zip(classifier.parameters(), frozen, strict=True):
            parameter.requires_grad_(not was_frozen)
        classifier.train(training)


def signs(target: Target, count: int) -> Tensor:
    """1 where the target is leukemia and -1 where it is not, ``float32 (count,)`` on the CPU."""
    labels = torch.as_tensor(target).cpu().expand(count)
    return (labels == Label.ALL).float() * 2 - 1


def log_odds(logits: Tensor) -> Tensor:
    """Log-odds of leukemia, ``float32 (B,)``, from ``(B, 2)`` logits."""
    logits = logits.float()
    return logits[:, Label.ALL] - logits[:, Label.HEM]
