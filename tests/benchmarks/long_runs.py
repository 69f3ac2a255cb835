"""Memory and open files of a process over many runs, and of a fit over many epochs.

    python tests/benchmarks/long_runs.py [--runs 200] [--epochs 50]

Prints, each measured in a new process: resident memory, open files, Python objects and matplotlib
figures, as means over the first and the last quarter after the warm-up, and the slope of a
regression line. The process keeps freed memory for its next step (see ``leuk.runs.process``), so
memory rises to the peak of a run and should be flat from there on.
"""

import argparse
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TINY = (
    "trainer=cpu",
    "data.images_per_fold=54",
    "data.size=32",
    "data.resolution=32",
    "data.batch_size=8",
    "explain_images=2",
)

NAMES = ("MiB resident", "open files", "objects", "figures")
WARM_UP = 0.1
"""Share excluded at the start, while modules are loaded and caches filled."""


def reading() -> tuple[float, ...]:
    """Current resources of this process, in the order of :data:`NAMES`."""
    import matplotlib.pyplot as plt

    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    files = len(os.listdir("/proc/self/fd"))
    return resident, files, len(gc.get_objects()), len(plt.get_fignums())


def report(unit: str, readings: list[tuple[float, ...]]) -> None:
    """Print means of the first and last quarters, and slopes."""
    table = np.array(readings)[round(WARM_UP * len(readings)) :]
    quarter = max(1, len(table) // 4)
    print(f"{len(readings)} {unit}, without the first {len(readings) - len(table)}:")
    for name, values in zip(NAMES, table.T, strict=True):
        slope = np.polyfit(np.arange(len(values)), values, 1)[0]
        first, last = values[:quarter].mean(), values[-quarter:].mean()
        print(f"  {name:<12}  {first:10.1f} -> {last:10.1f}  {slope:+.4f} each", flush=True)


def over_runs(count: int, outputs: Path) -> None:
    """Run a sweep of ``count`` runs in this process, and read after each."""
    from leuk.cli import main
    from leuk.commands import train

    readings: list[tuple[float, ...]] = []
    train.run = _and_then(train.run, lambda: _take(readings))
    seeds = f"seed={','.join(map(str, range(count)))}"
    small = ("fit.epochs=1", "explain=gradcam")
    code = main(["train", "-m", f"outputs={outputs}", *TINY, *small, seeds])
    report(f"runs (exit code {code})", readings)


def over_epochs(count: int, outputs: Path) -> None:
    """Fit for ``count`` epochs in this process, and read after each."""
    from leuk.cli import main
    from leuk.runs.trainer import Progress

    readings: list[tuple[float, ...]] = []
    ended = _and_then(Progress.on_train_epoch_end, lambda: _take(readings))
    Progress.on_train_epoch_end = ended  # type: ignore[method-assign]
    long = (f"fit.epochs={count}", f"fit.patience={count}", "explain=none")
    code = main(["train", f"outputs={outputs}", *TINY, *long])
    report(f"epochs (exit code {code})", readings)


def _take(readings: list[tuple[float, ...]]) -> None:
    """Take a reading and print every tenth."""
    readings.append(reading())
    if len(readings) % 10 == 0:
        text = ", ".join(
            f"{name} {value:.1f}" for name, value in zip(NAMES, readings[-1], strict=True)
        )
        print(f"after {len(readings)}: {text}", flush=True)


def _and_then(call: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
    def both(*args: Any) -> None:
        call(*args)
        then()

    return both


def main() -> None:
    """Measure both, each in a new process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--only", choices=("runs", "epochs"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if given.only == "runs":
            over_runs(given.runs, Path(scratch))
        elif given.only == "epochs":
            over_epochs(given.epochs, Path(scratch))
        else:
            for only in ("epochs", "runs"):
                subprocess.run(
                    [sys.executable, __file__, *sys.argv[1:], "--only", only], check=True
                )


if __name__ == "__main__":
    main()
