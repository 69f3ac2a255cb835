"""Optimizer and learning-rate schedules of the classifiers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from leuk.config.schema import Count, CountOrZero, NotNegative, Positive, Share
from leuk.training import KerasAdam, Stack

_LAST_RATE = 0.01
"""Final learning rate of the cosine schedule, as a share of the initial rate."""

ParameterGroup = tuple[list[nn.Parameter], float]
"""Parameters, and the factor on their learning rate."""


@dataclass(frozen=True)
class Optim:
    """Settings of the optimizer and of test-time augmentation."""

    learning_rate: Positive = 1e-4  # of Adam
    # Decoupled weight decay (AdamW, Loshchilov & Hutter 2019) of all parameters but biases and
    # normalization layers; 0 for Adam.
    weight_decay: NotNegative = 0.0
    # Cosine falls to 1 % of the rate at the last epoch; plateau, the thesis's, lowers the rate when
    # val/loss stops falling.
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    warmup_epochs: NotNegative = 0.0  # in which the rate rises from 0; ignored by plateau
    plateau_factor: Share = 0.2  # factor on the rate when plateau lowers it
    # Epochs without a lower val/loss before plateau lowers the rate; an epoch more if the model's
    # stack is torch.
    plateau_patience: Count = 2
    label_smoothing: Share = 0.0  # spread evenly over both classes (Szegedy et al. 2016)
    frozen_epochs: CountOrZero = 0  # initial epochs with a frozen pretrained backbone
    # 8 averages the logits of all flips and 90-degree rotations when images are scored, but never
    # in explanations.
    test_views: Literal[1, 8] = 1


def build_optimizer(
    optim: Optim, groups: Iterable[ParameterGroup], stack: Stack = "torch"
) -> torch.optim.Optimizer:
    """Return Adam, or AdamW if a weight decay is set, over ``groups``."""
    settings: list[dict[str, Any]] = []
    for parameters, scale in groups:
        rate = optim.learning_rate * scale
        matrices = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim <= 1]
        for some, decay in ((matrices, optim.weight_decay), (vectors, 0.0)):
            if some:
                settings.append({"params": some, "lr": rate, "weight_decay": decay})
    if stack == "keras":
        return KerasAdam(settings, lr=optim.learning_rate, fused=True)
    kind = torch.optim.AdamW if optim.weight_decay else torch.optim.Adam
    return kind(settings, lr=optim.learning_rate, fused=True)


def plateau_of(
    optim: Optim, optimizer: torch.optim.Optimizer, stack: Stack = "torch"
) -> ReduceLROnPlateau:
    """Return the ``plateau`` schedule.

    Keras lowers the rate in the epoch in which the patience is reached, PyTorch in the next. An
    improvement must be at least 1e-4 in Keras, and 1e-4 of the best loss in PyTorch.
    """
    keras = stack == "keras"
    return ReduceLROnPlateau(
        optimizer,
        factor=optim.plateau_factor,
        patience=optim.plateau_patience - keras,
        threshold_mode="abs" if keras else "rel",
        eps=0.0 if keras else 1e-8,
    )


def schedule_of(
    optim: Optim, optimizer: torch.optim.Optimizer, epochs: int, steps: int
) -> LambdaLR:
    """Return the schedule that sets the learning rate at each step, for all but ``plateau``.

    Args:
        optim: optimizer settings.
        optimizer: optimizer whose learning rates are set.
        epochs: planned number of epochs.
        steps: planned number of steps in all epochs together.
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
