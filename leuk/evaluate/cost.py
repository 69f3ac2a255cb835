"""What a model costs: parameters, arithmetic, time and memory.

The thesis's first hypothesis claims efficiency; the record of every cell holds these figures.
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
_REPEATS = 15
_LONGEST = 10.0
"""Seconds after which timing stops, three repeats at least."""

_FEWEST = 3

Cost = dict[str, float | int | str]

Ask = Callable[[Tensor], Tensor]


def cost_of(
    model: nn.Module,
    resolution: int,
    device: torch.device | str,
    batch: int = 64,
    ask: Ask | None = None,
) -> Cost:
    """Measure one model as it answers, in evaluation mode and float32.

    Args:
        model: takes ``(B, 3, R, R)`` in [0, 1]; moved to ``device`` and left there.
        resolution: pixels a side.
        device: where to measure.
        batch: images of the large batch.
        ask: how it answers where that is more than one call of it, such as the mean over views.

    Returns:
        ``parameters`` and ``trainable_parameters``; ``flops`` of one image (a multiplication and
        its addition are 2; convolutions, matrix products and attention are counted, activations
        and norms are not, as is the habit); ``latency_ms`` of one image alone and
        ``batch_latency_ms`` of one image in a batch of ``batch`` (medians after a warm-up);
        ``memory_bytes``, the peak with that batch: weights, images, and what is alive of the
        activations (on a CPU without what one operator takes and gives back within itself, on CUDA
        as its allocator counts); ``batch``, ``resolution`` and ``device`` (its name).
    """
    device = torch.device(device)
    model.to(device)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, resolution, resolution, generator=generator).to(device)
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    ask = ask or model
    with _evaluating(model):
        return {
            "parameters": sum(size for size, _ in sizes),
            "trainable_parameters": sum(size for size, trainable in sizes if trainable),
            "flops": _flops(ask, images[:1]),
            "latency_ms": _milliseconds(ask, images[:1]),
            "batch_latency_ms": _milliseconds(ask, images) / batch,
            "memory_bytes": _peak_memory(model, ask, images),
            "batch": batch,
            "resolution": resolution,
            "device": _name(device),
        }


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _flops(ask: Ask, images: Tensor) -> int:
    fused = torch.backends.mha.get_fastpath_enabled()
    # The counter sees neither a whole encoder layer in one operator nor fused attention on a CPU.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            ask(images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops())


def _milliseconds(ask: Ask, images: Tensor) -> float:
    """Median time of one call."""
    for _ in range(_WARM_UP):
        ask(images)
    taken: list[float] = []
    while len(taken) < _FEWEST or (len(taken) < _REPEATS and sum(taken) < _LONGEST):
        taken.append(_seconds(lambda: ask(images), images.device))
    return 1000 * median(taken)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(model: nn.Module, ask: Ask, images: Tensor) -> int:
    if images.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(images.device)
        ask(images)
        _wait(images.device)
        return torch.cuda.max_memory_allocated(images.device)
    # The profiler complains on the terminal where there is no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(use_kineto=False, profile_memory=True) as profiled:
        ask(images)
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
