"""Seconds that ``leuk report`` takes over many records.

    python tests/benchmarks/report.py [--records 500] [--images 20]

Writes synthetic records of a grid of four models and all augmentations over seeds and folds, with
14 patients per stage, then runs the command in a new process.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice, product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from sweeps import write_sweep

from leuk.config import augmentations
from leuk.runs.record import RunId

MODELS = ("cnn", "vit", "hybrid", "pretrained")
FOLDS = 3


def main() -> None:
    """Write a sweep and report it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=500)
    parser.add_argument("--images", type=int, default=20, help="per patient")
    options = parser.parse_args()
    grid = product(range(options.records), range(FOLDS), augmentations().items(), MODELS)
    runs = [
        RunId(model, name, kind, "subject_kfold", False, fold, seed, {"split.n_folds": FOLDS})
        for seed, fold, (name, kind), model in islice(grid, options.records)
    ]
    with tempfile.TemporaryDirectory() as outputs:
        sweep = Path(outputs) / "runs" / "many"
        write_sweep(sweep, runs, images=options.images)
        command = [sys.executable, "-m", "leuk", "report", "name=many", f"outputs={outputs}"]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = (sweep / "report/report.html").stat().st_size / 1e6
    print(
        f"{options.records} records: {taken:.1f} s by the clock, {used.ru_utime:.1f} s of CPU, "
        f"a page of {size:.1f} MB"
    )


if __name__ == "__main__":
    main()
