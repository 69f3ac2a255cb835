"""Cost of a model: parameters, FLOPs, latency and memory.

The thesis's first hypothesis is about efficiency, so the record of every run holds these values.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

_WARM_UP = 3
_FEWEST, _REPEATS = 3, 15
_LONGEST = 10.0
"""Seconds after which timing stops, after at least three repeats."""

Cost = dict[str, float | int | str]

Predict = Callable[[Tensor], Tensor]
"""From images ``(B, 3, R, R)`` to logits."""


def measure_cost(
    model: nn.Module,
    resolution: int,
    device: torch.device | str,
    batch: int = 64,
    predict: Predict | None = None,
) -> Cost:
    """Measure the cost of predicting, in evaluation mode and float32.

    The model stays on ``device`` afterwards. ``predict`` is used in place of a plain call of the
    model, such as the mean over views.

    Returns:
        ``parameters`` and ``trainable_parameters``; ``flops`` per image (a multiply-add counts
        2; convolutions, matrix products and attention are counted, activations and norms, as usual,
        are not); ``latency_ms`` of a single image and ``batch_latency_ms`` per image in a batch of
        ``batch`` (medians after a warm-up); ``memory_bytes``, the peak with that batch: weights,
        images and live activations (on a CPU without the scratch memory inside an operator, on CUDA
        as counted by its allocator); ``batch``, ``resolution`` and ``device`` (its name).
    """
    device = torch.device(device)
    model.to(device)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, resolution, resolution, generator=generator).to(device)
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    predict = predict or model
    with _evaluating(model):
        return {
            "parameters": sum(size for size, _ in sizes),
            "trainable_parameters": sum(size for size, trainable in sizes if trainable),
            "flops": _flops(predict, images[:1]),
            "latency_ms": 1000 * _seconds(predict, images[:1]),
            "batch_latency_ms": 1000 * _seconds(predict, images) / batch,
            "memory_bytes": _peak_memory(model, predict, images),
            "batch": batch,
            "resolution": resolution,
            "device": _name(device),
        }


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode without gradients; restore the mode of every module afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _flops(predict: Predict, images: Tensor) -> int:
    fused = torch.backends.mha.get_fastpath_enabled()
    # The counter misses a whole encoder layer fused into one operator, and fused CPU attention.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            predict(images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops())


def _seconds(predict: Predict, images: Tensor) -> float:
    """Median time of a prediction, after a warm-up."""
    taken: list[float] = []
    for _ in range(_WARM_UP):
        predict(images)
    while len(taken) < _FEWEST or (len(taken) < _REPEATS and sum(taken) < _LONGEST):
        _wait(images.device)
        started = time.perf_counter()
        predict(images)
        _wait(images.device)
        taken.append(time.perf_counter() - started)
    return median(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(model: nn.Module, predict: Predict, images: Tensor) -> int:
    if images.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(images.device)
        predict(images)
        _wait(images.device)
        return torch.cuda.max_memory_allocated(images.device)
    # Without a GPU the profiler would print warnings.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(use_kineto=False, profile_memory=True) as profiled:
        predict(images)
    alive = peak = 0
    for event in sorted(profiled.function_events, key=lambda event: event.time_range.start):
        alive += event.self_cpu_memory_usage
        peak = max(peak, alive)
    held = [images, *model.parameters(), *model.buffers()]
    return peak + sum(tensor.numel() * tensor.element_size() for tensor in held)


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{platform.processor() or platform.machine()} CPU, {threads} thread{'s'[: threads > 1]}"
