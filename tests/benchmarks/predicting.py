"""What the benchmarks of explanations share: cells, a clock, and a model alone at its best."""

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from side_by_side import SIDE
from torch import Tensor

from leuk.classifiers.classifier import Classifier
from leuk.classifiers.cnn import CNN
from leuk.classifiers.hybrid import Hybrid
from leuk.classifiers.vit import ViT
from leuk.explain.perturb import ask
from leuk.runs.heap import M_MMAP_MAX, M_TRIM_THRESHOLD, keep_heap

FORMS: dict[str, Callable[[], Classifier]] = {"cnn": CNN, "vit": ViT, "hybrid": Hybrid}
BATCHES: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
if torch.cuda.is_available():
    BATCHES += (256, 512, 1024)

CLOCK = [time.perf_counter]
"""What counts the seconds; ``time.process_time`` where a host is busy with other things."""


def cells(count: int, device: str) -> Tensor:
    """Speckled discs on black, ``(count, 3, 224, 224)``, as large as cells are."""
    place = torch.arange(SIDE) - SIDE / 2
    disc = place[:, None] ** 2 + place**2 < (SIDE / 3.2) ** 2
    speckles = 0.2 + 0.6 * torch.rand(
        count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)
    )
    return (speckles * disc).to(device, memory_format=torch.channels_last)


@contextmanager
def default_heap() -> Iterator[None]:
    """A process as it is without ``keep_heap``, by glibc's defaults; see mallopt(3)."""
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
    """How long some work takes, the device's part of it too."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = CLOCK[0]()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return CLOCK[0]() - started


def best_batch(classifier: Classifier, images: Tensor, device: str) -> int:
    """The batch size with the most images a second."""
    taken = {}
    for batch in BATCHES:
        ask(classifier, images[:batch], batch)
        work = partial(ask, classifier, images, batch)
        taken[batch] = min(seconds(work, device) for _ in range(2))
    print("  seconds by batch size:", {size: round(took, 2) for size, took in taken.items()})
    return min(taken, key=lambda batch: taken[batch])
