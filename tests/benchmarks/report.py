"""Seconds that ``leuk report`` takes over many records.

    python tests/benchmarks/report.py [--records 500] [--images 20]

Writes synthetic records of a grid of four models and six augmentations over seeds and folds, with
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

from leuk.runs.record import RunId

MODELS = ("cnn", "vit", "hybrid", "pretrained")
AUGMENTATIONS = ("none", "oversample", "class_weights", "dcgan", "wgan", "cgan")
FOLDS = ("n_folds_3", "fold_1-n_folds_3", "fold_2-n_folds_3")


def main() -> None:
    """Write a sweep and report it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=500)
    parser.add_argument("--images", type=int, default=20, help="per patient")
    options = parser.parse_args()
    seeds = range(1 + options.records // (len(MODELS) * len(AUGMENTATIONS) * len(FOLDS)))
    grid = product(MODELS, AUGMENTATIONS, seeds, FOLDS)
    runs = [RunId(m, a, "subject_kfold", seed, fold) for m, a, seed, fold in grid]
    with tempfile.TemporaryDirectory() as outputs:
        sweep = Path(outputs) / "runs" / "many"
        write_sweep(sweep, islice(runs, options.records), images=options.images)
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
