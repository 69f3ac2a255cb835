"""Memory and open files of a process over many runs.

    python tests/benchmarks/long_runs.py [--runs 200]

Prints resident memory, open files and Python objects as means over the first and the last quarter
after the warm-up, and the slope of a regression line. The process keeps freed memory for its next
step (see ``leuk.runs.process``), so memory rises to the peak of a run and should then be flat.
"""

import argparse
import gc
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from leuk.cli import main as leuk
from leuk.commands import train

TINY = (
    "trainer=cpu",
    "data.images_per_fold=54",
    "data.size=32",
    "data.resolution=32",
    "data.batch_size=8",
    "explain_images=2",
    "fit.epochs=1",
    "explain=gradcam",
)
NAMES = ("MiB resident", "open files", "objects")


def reading() -> tuple[float, ...]:
    """Current resources of this process, in the order of :data:`NAMES`."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resident, len(os.listdir("/proc/self/fd")), len(gc.get_objects())


def main() -> None:
    """Run a sweep in this process, and read its resources after each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    readings: list[tuple[float, ...]] = []
    train_one = train.run

    def run(*args: Any) -> None:
        train_one(*args)
        readings.append(reading())

    train.run = run
    with tempfile.TemporaryDirectory() as outputs:
        seeds = f"seed={','.join(map(str, range(runs)))}"
        code = leuk(["train", "-m", f"outputs={outputs}", *TINY, seeds])
    # The first tenth loads modules and fills caches.
    table = np.array(readings)[round(0.1 * len(readings)) :]
    quarter = max(1, len(table) // 4)
    print(f"{len(readings)} runs (exit code {code}), the last {len(table)} of them:")
    for name, values in zip(NAMES, table.T, strict=True):
        slope = np.polyfit(np.arange(len(values)), values, 1)[0]
        first, last = values[:quarter].mean(), values[-quarter:].mean()
        print(f"  {name:<12}  {first:10.1f} -> {last:10.1f}  {slope:+.4f} each")


if __name__ == "__main__":
    main()
