"""The contract of every explanation method: one verb, one result."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from leuk.classifiers.classifier import Classifier


@dataclass(frozen=True)
class Attribution:
    """Where a decision came from.

    Attributes:
        maps: ``float32 (B, H, W)`` on the CPU; positive speaks for the target class.
        unit: what one independent value of a map stands for.
        seconds: how long the whole batch took.
    """

    maps: Tensor
    unit: Literal["pixel", "superpixel", "patch"]
    seconds: float

    @property
    def degenerate(self) -> Tensor:
        """``bool (B,)``: maps that are constant (all zero among them) or hold NaN or infinity."""
        flat = self.maps.flatten(1)
        return ~flat.isfinite().all(dim=1) | (flat.amax(dim=1) == flat.amin(dim=1))


class Explainer(ABC):
    """A way to attribute a classifier's decision to parts of the image."""

    name: str

    @abstractmethod
    def attribute(self, classifier: Classifier, images: Tensor, target: int) -> Attribution:
        """Explain the logit of ``target``.

        Args:
            classifier: fitted; its device is used, its weights are left as they are.
            images: ``(B, 3, R, R)`` in [0, 1].
            target: a :class:`leuk.data.cnmc.Label`.
        """
