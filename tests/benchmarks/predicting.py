"""Common parts of the benchmarks of explanations: images, a clock, and the best batch size."""

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from side_by_side import SIDE
from torch import Tensor

from leuk.classifiers.base import Classifier
from leuk.classifiers.cnn import CNN
from leuk.classifiers.hybrid import Hybrid
from leuk.classifiers.vit import ViT
from leuk.explain.perturb import predict_log_odds
from leuk.runs.process import M_MMAP_MAX, M_TRIM_THRESHOLD, keep_heap

FORMS: dict[str, Callable[[], Classifier]] = {"cnn": CNN, "vit": ViT, "hybrid": Hybrid}
BATCHES: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
if torch.cuda.is_available():
    BATCHES += (256, 512, 1024)

CLOCK = [time.perf_counter]
"""Clock in use; ``time.process_time`` suits a busy host."""


def cells(count: int, device: str) -> Tensor:
    """Speckled discs on black, ``(count, 3, 224, 224)``, as large as cells."""
    offset = torch.arange(SIDE) - SIDE / 2
    disc = offset[:, None] ** 2 + offset**2 < (SIDE / 3.2) ** 2
    speckles = 0.2 + 0.6 * torch.rand(
        count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)
    )
    return (speckles * disc).to(device, memory_format=torch.channels_last)


@contextmanager
def default_heap() -> Iterator[None]:
    """Undo ``keep_heap``: glibc's default settings, see mallopt(3)."""
    if not keep_heap():
        yield
        return
    mallopt = ctypes.CDLL(None).mallopt
    for setting, value in ((M_MMAP_MAX, 65536), (-3, 2**25), (M_TRIM_THRESHOLD, 2**26)):
        mallopt(setting, value)
    try:
        yield
    finally:
        keep_heap()


def seconds(work: Callable[[], object], device: str) -> float:
    """Duration of some work, including that on the device."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = CLOCK[0]()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return CLOCK[0]() - started


def best_batch(classifier: Classifier, images: Tensor, device: str) -> int:
    """Batch size with the most images per second."""
    taken = {}
    for batch in BATCHES:
        predict_log_odds(classifier, images[:batch], batch)
        work = partial(predict_log_odds, classifier, images, batch)
        taken[batch] = min(seconds(work, device) for _ in range(2))
    print("  seconds by batch size:", {size: round(took, 2) for size, took in taken.items()})
    return min(taken, key=lambda batch: taken[batch])
