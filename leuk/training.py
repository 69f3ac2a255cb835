"""Random streams that depend only on seed, epoch and process.

A fit resumed at the end of an epoch therefore draws the same numbers as an uninterrupted one.
"""

import atexit
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import Strategy
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.optim import AdamW

from leuk.config.schema import Share
from leuk.errors import TrainingError

_EPOCHS, _RANKS = 1_000_003, 7_919
"""Primes, so that epochs and processes get different seeds."""


def start_stream(seed: int, epoch: int, rank: int) -> None:
    """Seed torch's generators for an epoch of the process with this rank."""
    torch.manual_seed((seed + epoch * _EPOCHS + rank * _RANKS) % 2**63)


class SeededModule(LightningModule):
    """Module whose random numbers in an epoch depend only on seed, epoch and process."""

    _seed: int | None = None

    def on_fit_start(self) -> None:
        if self._seed is None:
            self._seed = torch.initial_seed()

    def on_train_epoch_start(self) -> None:
        assert self._seed is not None
        start_stream(self._seed, self.current_epoch, self.global_rank)


def save_arguments(module: LightningModule) -> None:
    """Save the arguments of a module's constructor in its checkpoints, as plain values only.

    ``torch.load(weights_only=True)`` can then read the checkpoint. Called while the module is
    constructed, also by the constructor of a base class: Lightning reads the call stack.
    """
    module.save_hyperparameters(*inspect.signature(type(module)).parameters)
    plain: dict[str, Any] = {}
    for name, value in module.hparams.items():
        if isinstance(value, tuple):
            plain[name] = list(value)
        elif is_dataclass(value) and not isinstance(value, type):
            plain[name] = asdict(value)
    module.save_hyperparameters(plain)


# --- Initial weights as drawn by Keras, the thesis's framework


def glorot(layer: nn.Module) -> None:
    """Set Glorot uniform weights and zero biases, Keras's defaults; for :meth:`Module.apply`."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, KerasAttention):
        # ``apply`` has just set its output layer as a plain linear layer; set it again.
        layer._reset_parameters()


def glorot_uniform(weight: Tensor, fan_in: int, fan_out: int) -> None:
    """Fill a weight from U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16).

    Needed for weights whose shape, and so fan-in and fan-out, differs between Keras and PyTorch.
    """
    limit = math.sqrt(6 / (fan_in + fan_out))
    with torch.no_grad():
        weight.uniform_(-limit, limit)


class KerasAttention(nn.MultiheadAttention):
    """Multi-head attention with the initial weights of Keras's ``MultiHeadAttention``.

    Until 2026 (keras-team/keras#22789) Keras computed the fans of its three-dimensional kernels,
    (D, heads, D / heads) and for the output (heads, D / heads, D), as if they were convolutions.
    With D = 256 and 4 heads, the weights of queries, keys and values start in +-0.019 and those of
    the output in +-0.068; in PyTorch they start in +-0.077 and +-0.108.
    """

    def _reset_parameters(self) -> None:
        super()._reset_parameters()
        width, heads = self.embed_dim, self.num_heads
        glorot_uniform(self.in_proj_weight, width * heads, width * self.head_dim)
        glorot_uniform(self.out_proj.weight, width, width * heads)


# --- Running averages of weights, computed without waiting for the device

_RAMP = 10
"""Length of the initial ramp: after n updates the past weighs at most (1 + n) / (_RAMP + n)."""


@torch.no_grad()
def move_average(
    past: Mapping[str, Tensor], now: Mapping[str, Tensor], decay: float, updates: int
) -> None:
    """Update an exponential moving average of weights in place.

    Args:
        past: ``state_dict`` of the average, batch statistics included.
        now: ``state_dict`` of the network, with the same names.
        decay: weight of the past after the initial ramp, in [0, 1).
        updates: number of updates of the network so far.
    """
    decay = min(decay, (1 + updates) / (_RAMP + updates))
    floats = [name for name, value in past.items() if value.is_floating_point()]
    torch._foreach_lerp_([past[name] for name in floats], [now[name] for name in floats], 1 - decay)
    for name in past.keys() - set(floats):
        past[name].copy_(now[name])


class WeightEMA(WeightAveraging):
    """Exponential moving average of the weights, used for validation, checkpoints and the result.

    Lightning's averaging reads its step count from the device at every step, which waits for the
    GPU; this callback takes the trainer's count.

    Args:
        decay: weight of the past after the initial ramp, in [0, 1).
    """

    def __init__(self, decay: Share = 0.99) -> None:
        super().__init__()
        self.decay = decay

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer.global_step <= self._latest_update_step:
            return
        assert self._average_model is not None
        past, now = self._average_model.module.state_dict(), pl_module.state_dict()
        move_average(past, now, self.decay, trainer.global_step)
        self._average_model.n_averaged += 1
        self._latest_update_step = trainer.global_step


# --- Detection of NaN or infinite losses without waiting for the device at every step

EVERY = 100
"""Steps from one check to the next; each check waits for the device."""


class FirstBad(nn.Module):
    """First step with a NaN or infinite loss, kept on the device; -1 before one occurs."""

    step: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.tensor(-1), persistent=False)

    def note(self, losses: Tensor, step: int) -> None:
        """Record ``step`` if any of ``losses`` is NaN or infinite and no earlier loss was."""
        bad = ~torch.isfinite(losses.detach()).all()
        self.step = torch.where(bad & (self.step < 0), step, self.step)

    def check(self, strategy: Strategy, unit: str, advice: str) -> None:
        """Stop all processes together if a loss of any of them was NaN or infinite.

        A process that continued alone would wait for the others forever.

        Raises:
            TrainingError: a loss was NaN or infinite; the message names the first such step, in
                ``unit``, and ends with ``advice``.
        """
        first = int(strategy.reduce(self.step.clone(), reduce_op="max"))
        if first >= 0:
            raise TrainingError(f"the loss became NaN or infinite at {unit} {first}; {advice}")


# --- Clean end of the process group of a distributed fit


class EndsProcessGroup(Callback):
    """Callback that closes the process group before the Python interpreter exits.

    A Gloo thread may hold tensors of a finished collective, and the process aborts if they are
    released during interpreter shutdown (pytorch/pytorch#190489). Lightning closes only NCCL
    groups. After a failed fit the group stays open, because closing it could wait forever for the
    other processes.
    """

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the group at exit and not now, as code after the fit may still use it."""
        if distributed.is_available() and distributed.is_initialized():
            atexit.register(_close)


def _close() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


# --- Keras's layers and Adam where they differ from PyTorch's

Stack = Literal["keras", "torch"]
"""Framework whose conventions a model follows: Keras, as in the thesis, or PyTorch."""

NORM_EPSILON = 1e-3
"""Keras's default epsilon of batch and layer normalization."""

NORM_MOMENTUM = 0.01
"""Keras's momentum of 0.99 in PyTorch's convention, the weight of the new batch."""

_ADAM_EPSILON = 1e-7


class _KerasBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalization with Keras's constants and running variance.

    Keras averages the biased variance of the batches, PyTorch the unbiased one, which is 3 % larger
    for features in a batch of 32.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return super().forward(values)
        past_mean, past_variance, batches = (
            self.running_mean, self.running_var, self.num_batches_tracked,
        )  # fmt: skip
        assert past_mean is not None
        assert past_variance is not None
        assert batches is not None
        batches.add_(1)
        # Momentum None: the running statistics are the mean over all batches.
        share = 1 / int(batches) if self.momentum is None else self.momentum
        # Copies, because autograd refuses in-place changes of tensors that batch_norm has saved.
        mean, variance = past_mean.clone(), past_variance.clone()
        normalized = F.batch_norm(
            values, mean, variance, self.weight, self.bias, True, share, self.eps
        )
        count = values.numel() // values.shape[1]
        past_mean.copy_(mean)
        # From (1 - share) * old + share * unbiased to (1 - share) * old + share * biased.
        past_variance.mul_((1 - share) / count).add_(variance, alpha=(count - 1) / count)
        return normalized


class KerasBatchNorm1d(_KerasBatchNorm, nn.BatchNorm1d):
    """Batch normalization of features ``(B, C)``."""


class KerasBatchNorm2d(_KerasBatchNorm, nn.BatchNorm2d):
    """Batch normalization of maps ``(B, C, h, w)``."""


def batch_norm1d(features: int, stack: Stack) -> nn.BatchNorm1d:
    """Return batch normalization of features ``(B, C)`` with the constants of a stack."""
    return KerasBatchNorm1d(features) if stack == "keras" else nn.BatchNorm1d(features)


def batch_norm2d(channels: int, stack: Stack) -> nn.BatchNorm2d:
    """Return batch normalization of maps ``(B, C, h, w)`` with the constants of a stack."""
    return KerasBatchNorm2d(channels) if stack == "keras" else nn.BatchNorm2d(channels)


def layer_norm(width: int, stack: Stack) -> nn.LayerNorm:
    """Return layer normalization of tokens ``(..., D)`` with the constants of a stack."""
    return nn.LayerNorm(width, eps=NORM_EPSILON) if stack == "keras" else nn.LayerNorm(width)


class SameConv2d(nn.Conv2d):
    """Convolution that divides the side by its stride, with Keras's ``same`` padding.

    If the padding is odd, the additional row and column of zeros are at the bottom and right.
    PyTorch pads symmetrically, which shifts every window up and left by a pixel. The kernel is at
    least as large as the stride, a divisor of the side of the maps.
    """

    def __init__(self, before: int, after: int, kernel: int, stride: int) -> None:
        super().__init__(before, after, kernel, stride=stride)
        first = (kernel - stride) // 2
        last = kernel - stride - first
        self.margins = (first, last, first, last)

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(F.pad(maps, self.margins))


class SameConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution that multiplies the side by its stride, with Keras's cropping.

    It is the gradient of :class:`SameConv2d`: if the crop is odd, an additional row and column are
    removed at the bottom and right.
    """

    def __init__(self, before: int, after: int, kernel: int, stride: int, bias: bool) -> None:
        super().__init__(
            before, after, kernel, stride=stride, padding=(kernel - stride) // 2, bias=bias
        )
        self.odd = (kernel - stride) % 2

    def forward(self, maps: Tensor, output_size: list[int] | None = None) -> Tensor:
        grown = super().forward(maps, output_size)
        return grown[..., :-1, :-1] if self.odd else grown


class KerasAdam(AdamW):
    """Adam, or AdamW if a weight decay is set, with Keras's epsilon.

    Keras adds 1e-7 to the root of the second moment before the bias correction, PyTorch after it.
    In PyTorch's convention this is an epsilon of 3e-6 at the first step and 1.3e-7 at step 1,000.
    """

    def __init__(self, parameters: Any, **arguments: Any) -> None:
        super().__init__(parameters, **{"weight_decay": 0.0, **arguments})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step; ``closure``, if given, computes the loss and its gradients again."""
        for group in self.param_groups:
            group["steps"] = group.get("steps", 0) + 1
            group["eps"] = _ADAM_EPSILON / math.sqrt(1 - group["betas"][1] ** group["steps"])
        loss: float | None = super().step(closure)
        return loss
