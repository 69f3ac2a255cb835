"""How a classifier's weights are updated: optimizer, groups, and rates over time."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from leuk.config.ranges import Count, CountOrZero, NotNegative, Positive, Share
from leuk.training.stack import KerasAdam, Stack

_LAST_RATE = 0.01
"""Share of the rate that a cosine ends with."""


@dataclass(frozen=True)
class Optim:
    """How weights are updated, and how the fitted ones are asked.

    Attributes:
        learning_rate: of Adam.
        weight_decay: decoupled (AdamW, Loshchilov & Hutter 2019) where it is above 0; biases and
            the weights of normalisation layers have none.
        schedule: ``constant``; ``cosine``, to a hundredth at the last epoch; or ``plateau``, times
            ``plateau_factor`` after ``plateau_patience`` epochs without a lower ``val/loss``, as
            published, one more where the model's ``stack`` is ``torch``; no small or strong form
            uses it.
        warmup_epochs: over which the rate rises from 0, except under ``plateau``.
        plateau_factor: see ``schedule``.
        plateau_patience: see ``schedule``.
        label_smoothing: share of the truth spread over both classes (Szegedy et al. 2016).
        frozen_epochs: for which a pretrained backbone stays as it came.
        test_views: 1, or 8 to average the logits of all flips and quarter turns wherever images
            are scored; explanations explain the upright view.
    """

    learning_rate: Positive = 1e-4
    weight_decay: NotNegative = 0.0
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    warmup_epochs: NotNegative = 0.0
    plateau_factor: Share = 0.2
    plateau_patience: Count = 2
    label_smoothing: Share = 0.0
    frozen_epochs: CountOrZero = 0
    test_views: Literal[1, 8] = 1

    @property
    def steady(self) -> bool:
        """Whether the rate never changes."""
        return self.schedule == "constant" and not self.warmup_epochs


@dataclass(frozen=True)
class Group:
    """Parameters that are updated alike.

    Attributes:
        parameters: the tensors.
        scale: factor on the learning rate.
        frozen: whether they stay as they are for the first ``frozen_epochs``.
    """

    parameters: Sequence[nn.Parameter]
    scale: float = 1.0
    frozen: bool = False


def build_optimizer(
    optim: Optim, groups: Iterable[Group], stack: Stack = "torch"
) -> torch.optim.Optimizer:
    """Adam, or AdamW where there is weight decay, over ``groups``."""
    described: list[dict[str, Any]] = []
    for group in groups:
        rate = optim.learning_rate * group.scale
        matrices = [p for p in group.parameters if p.ndim > 1]
        vectors = [p for p in group.parameters if p.ndim <= 1]
        for some, decay in ((matrices, optim.weight_decay), (vectors, 0.0)):
            if some:
                described.append({"params": some, "lr": rate, "weight_decay": decay})
    if stack == "keras":
        return KerasAdam(described, lr=optim.learning_rate, fused=True)
    kind = torch.optim.AdamW if optim.weight_decay else torch.optim.Adam
    return kind(described, lr=optim.learning_rate, fused=True)


def plateau_of(
    optim: Optim, optimizer: torch.optim.Optimizer, stack: Stack = "torch"
) -> ReduceLROnPlateau | None:
    """Lower the rate when the validation loss stands still; None under other schedules.

    Keras acts in the epoch in which its patience is reached, PyTorch in the one after; an
    improvement is 1e-4 to Keras, and 1e-4 of the best loss to PyTorch.
    """
    if optim.schedule != "plateau":
        return None
    if stack == "keras":
        return ReduceLROnPlateau(
            optimizer,
            factor=optim.plateau_factor,
            patience=optim.plateau_patience - 1,
            threshold=1e-4,
            threshold_mode="abs",
            eps=0.0,
        )
    return ReduceLROnPlateau(
        optimizer, factor=optim.plateau_factor, patience=optim.plateau_patience
    )


def schedule_of(
    optim: Optim, optimizer: torch.optim.Optimizer, epochs: int, steps: int
) -> LambdaLR:
    """What changes the rate step by step, under all schedules but ``plateau``.

    Args:
        optim: how weights are updated.
        optimizer: whose rates change.
        epochs: that are planned.
        steps: that are planned, of all epochs together.
    """
    warmup = round(optim.warmup_epochs * steps / epochs)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if optim.schedule == "constant":
            return 1.0
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        return _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * done)) / 2

    return LambdaLR(optimizer, factor)
