"""Interface of all explanation methods: one verb, ``attribute``, and one result.

Methods explain the log-odds of leukemia, the difference of the classifier's two logits, because the
decision depends on nothing else. The log-odds of the healthy class are their negative.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from leuk.classifiers.base import Classifier
from leuk.data.labels import Label
from leuk.errors import ConfigError, DataError

Unit = Literal["pixel", "superpixel", "patch"]
"""Element of the image that has a value of its own in a map."""

Target = int | Tensor
"""A :class:`leuk.data.labels.Label` for all images, or a label per image, ``int64 (B,)``."""

CONTRIBUTION = "contribution to the log-odds of leukemia"


@dataclass(frozen=True, eq=False)
class Attribution:
    """Contribution of each image region to the decisions on a batch; all tensors on the CPU.

    Positive values of a map are evidence for the target class. The value of a superpixel or patch
    is spread evenly over its pixels, so that the sum over them is its value.
    """

    maps: Tensor  # float32 (B, R, R)
    unit: Unit
    seconds: float = 0.0  # for the whole batch
    checks: Mapping[str, Tensor] = field(default_factory=dict)  # own quality measures, (B,)
    segments: Tensor | None = None  # int64 (B, R, R), superpixel or patch, -1 outside all of them
    signed: bool = True  # else a map shows the importance of each region, whatever the target
    title: str = ""  # display name of the method
    quantity: str = CONTRIBUTION  # name of the values

    def toward(self, target: Target) -> Tensor:
        """Convert maps for leukemia to maps of evidence for ``target``, ``float32 (B, R, R)``."""
        if not self.signed:
            return self.maps
        return self.maps * signs(target, len(self.maps))[:, None, None]

    @property
    def degenerate(self) -> Tensor:
        """Mask ``bool (B,)`` of maps that are constant (such as all zero) or not finite."""
        flat = self.maps.flatten(1)
        return ~flat.isfinite().all(dim=1) | (flat.amax(dim=1) == flat.amin(dim=1))

    def of(self, positions: Sequence[int]) -> "Attribution":
        """Select images by position; ``seconds`` stays the time for the whole batch."""
        return replace(
            self,
            maps=self.maps[positions],
            checks={name: values[positions] for name, values in self.checks.items()},
            segments=None if self.segments is None else self.segments[positions],
        )

    @classmethod
    def join(cls, parts: Sequence["Attribution"]) -> "Attribution":
        """Join the batches of a method."""
        segments = [part.segments for part in parts if part.segments is not None]
        return replace(
            parts[0],
            maps=torch.cat([part.maps for part in parts]),
            seconds=sum(part.seconds for part in parts),
            checks={
                name: torch.cat([part.checks[name] for part in parts]) for name in parts[0].checks
            },
            segments=torch.cat(segments) if segments else None,
        )


class Explainer(ABC):
    """Method that attributes a classifier's decision to regions of the image.

    To add a method, write a subclass with :meth:`_explain`, and a file ``conf/explain/NAME.yaml``.
    """

    name: str  # identifier in configs, file names and tables
    title: str = ""  # display name; the name if empty
    quantity: str = CONTRIBUTION  # name of the values, for the color bar
    thesis_figure: int | None = None  # number of the thesis's figure of such maps, 9, 10 or 11
    needs_patches: bool = False  # requires a classifier with patch tokens
    needs_background: bool = False  # compares with training images
    of_attention: bool = False  # maps show the classifier's attention
    when_possible: bool = False  # skip classifiers that lack patches instead of refusing them

    def attribute(
        self,
        classifier: Classifier,
        images: Tensor,
        target: Target,
        background: Tensor | None = None,
    ) -> Attribution:
        """Explain the log-odds of ``target`` against the other class.

        The classifier sees each image once, without test-time augmentation; its weights do not
        change. Images ``(B, 3, R, R)`` are in [0, 1] and on its device, like the training images
        ``background``, which methods with :attr:`needs_background` require.

        Raises:
            ConfigError: the method does not support the classifier.
            DataError: the image size differs from that of the training images.
            ValueError: the method needs a background and none is given.
        """
        if background is None:
            if self.needs_background:
                raise ValueError(f"{self.name} compares with training images: pass a background")
            background = images[:0]
        side = classifier.hparams.get("resolution", images.shape[-1])
        for name, batch in (("images", images), ("background", background)):
            if batch.ndim != 4 or tuple(batch.shape[1:]) != (3, side, side):
                raise DataError(
                    f"{name} of {tuple(batch.shape)}: this classifier was trained on images of "
                    f"{side} x {side} px; set data.resolution={side}"
                )
        self.check(classifier)
        started = time.perf_counter()
        with evaluation_mode(classifier):
            found = self._explain(classifier, images, background)
        return replace(
            found,
            maps=found.toward(target),
            seconds=time.perf_counter() - started,
            title=self.title or self.name,
            quantity=self.quantity,
        )

    def check(self, classifier: Classifier) -> None:
        """Raise a ConfigError for a classifier that has no patches, or not the configured layer."""
        if self.needs_patches and not classifier.has_patches:
            raise ConfigError(f"explain={self.name}: {classifier.no_patches_message()}")

    @abstractmethod
    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        """Attribute the log-odds of leukemia; the classifier is already in evaluation mode."""


def possible_explainers(
    explainers: Mapping[str, Explainer], classifier: Classifier
) -> tuple[dict[str, Explainer], dict[str, str]]:
    """Separate the methods that support this classifier from those to omit, with the reason.

    Raises:
        ConfigError: a method without ``when_possible`` does not support the classifier.
    """
    kept: dict[str, Explainer] = {}
    left_out: dict[str, str] = {}
    for name, explainer in explainers.items():
        if explainer.needs_patches and not classifier.has_patches and explainer.when_possible:
            left_out[name] = f"{type(classifier).__name__} has no patches"
        else:
            explainer.check(classifier)
            kept[name] = explainer
    return kept, left_out


@contextmanager
def evaluation_mode(classifier: Classifier) -> Iterator[None]:
    """Put the classifier into evaluation mode with gradients enabled; restore it afterwards."""
    training = classifier.training
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    classifier.eval().requires_grad_(False)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        classifier.train(training)


def signs(target: Target, count: int) -> Tensor:
    """Return 1 for each leukemia target and -1 for each other, ``float32 (count,)`` on the CPU."""
    labels = torch.as_tensor(target).cpu().expand(count)
    return (labels == Label.ALL).float() * 2 - 1


def log_odds(logits: Tensor) -> Tensor:
    """Log-odds of leukemia, ``float32 (B,)``, from ``(B, 2)`` logits."""
    logits = logits.float()
    return logits[:, Label.ALL] - logits[:, Label.HEM]
