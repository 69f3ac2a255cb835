"""Memory and open files of one process over many cells, and of one fit over many epochs.

    python tests/benchmarks/long_runs.py [--cells 200] [--epochs 50]

Prints, each in a process of its own: resident memory, open files, Python objects and figures of
matplotlib, as means over the first and the last quarter of what follows the warm-up, and the slope
of a line through all of it. The process keeps freed memory for its next step on purpose (see
``leuk.runs.heap``), so memory rises to the peak of a cell and is to be flat from there on.
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
"""Share at the start that is left out: what is loaded and cached once."""


def reading() -> tuple[float, ...]:
    """What this process holds now, as :data:`NAMES` says."""
    import matplotlib.pyplot as plt

    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    files = len(os.listdir("/proc/self/fd"))
    return resident, files, len(gc.get_objects()), len(plt.get_fignums())


def report(what: str, readings: list[tuple[float, ...]]) -> None:
    """Print means of the first and last quarters, and slopes."""
    table = np.array(readings)[round(WARM_UP * len(readings)) :]
    quarter = max(1, len(table) // 4)
    print(f"{len(readings)} {what}, without the first {len(readings) - len(table)}:")
    for name, values in zip(NAMES, table.T, strict=True):
        slope = np.polyfit(np.arange(len(values)), values, 1)[0]
        first, last = values[:quarter].mean(), values[-quarter:].mean()
        print(f"  {name:<12}  {first:10.1f} -> {last:10.1f}  {slope:+.4f} each", flush=True)


def over_cells(count: int, outputs: Path) -> None:
    """Run a sweep of ``count`` cells here, and read after each."""
    from leuk.cli import main
    from leuk.commands import train

    readings: list[tuple[float, ...]] = []
    train.run = _and_then(train.run, lambda: _take(readings))
    seeds = f"seed={','.join(map(str, range(count)))}"
    small = ("fit.epochs=1", "explain=gradcam")
    code = main(["train", "-m", f"outputs={outputs}", *TINY, *small, seeds])
    report(f"cells (exit code {code})", readings)


def over_epochs(count: int, outputs: Path) -> None:
    """Fit a cell for ``count`` epochs here, and read after each."""
    from leuk.cli import main
    from leuk.runs.progress import Progress

    readings: list[tuple[float, ...]] = []
    ended = _and_then(Progress.on_train_epoch_end, lambda: _take(readings))
    Progress.on_train_epoch_end = ended  # type: ignore[method-assign]
    long = (f"fit.epochs={count}", f"fit.patience={count}", "explain=none")
    code = main(["train", f"outputs={outputs}", *TINY, *long])
    report(f"epochs (exit code {code})", readings)


def _take(readings: list[tuple[float, ...]]) -> None:
    """One more reading; every tenth is printed."""
    readings.append(reading())
    if len(readings) % 10 == 0:
        said = ", ".join(
            f"{name} {value:.1f}" for name, value in zip(NAMES, readings[-1], strict=True)
        )
        print(f"after {len(readings)}: {said}", flush=True)


def _and_then(call: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
    def both(*args: Any) -> None:
        call(*args)
        then()

    return both


def main() -> None:
    """Read both, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--only", choices=("cells", "epochs"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if given.only == "cells":
            over_cells(given.cells, Path(scratch))
        elif given.only == "epochs":
            over_epochs(given.epochs, Path(scratch))
        else:
            for only in ("epochs", "cells"):
                subprocess.run(
                    [sys.executable, __file__, *sys.argv[1:], "--only", only], check=True
                )


if __name__ == "__main__":
    main()
