"""Time and memory of indexing, decoding, linking, splitting and loading many images.

    python tests/benchmarks/many_runs.py [--most 100000]

Prints seconds per 1,000 images and the memory taken, mapped files excluded. On two cores indexing,
decoding, splitting and loading cost the same per image at 10,000 and at 100,000; linking, done
once, 0.95 s per 1,000 at 10,000 and 2.6 s at 100,000; the tables take 1 kB per image.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from leuk.data.labels import Label
from leuk.data.phantom import Subject, draw_cell

SIZE = 48

ONE = """
import sys, time, resource, warnings
warnings.filterwarnings("ignore")
from leuk.data.layouts import CNMC, index_images
from leuk.data.links import link_images
from leuk.data.datamodule import CNMCDataModule
from leuk.data.rules import SubjectKFold
from pathlib import Path
root, cache, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def anonymous():
    for row in open("/proc/self/status"):
        if row.startswith("RssAnon"):
            return int(row.split()[1]) / 1024
times, before = {}, anonymous()
def timed(name, call):
    started = time.perf_counter()
    result = call()
    times[name] = time.perf_counter() - started
    return result
timed("index", lambda: index_images(root))
data = timed("index and decode", lambda: CNMC(root, resolution=32, cache=cache))
timed("link", lambda: link_images(data.index, data.store))
module = CNMCDataModule(str(root), SubjectKFold(), resolution=32, cache=str(cache))
timed("open again and split", module.setup)
def epoch():
    for rows in module.train_dataloader():
        module.transfer_batch_to_device(rows, __import__("torch").device("cpu"), 0)
timed("one epoch of batches", epoch)
shown = ", ".join(f"{name} {1000 * seconds / count:.3f}" for name, seconds in times.items())
print(f"{count:>7} images, s per 1,000: {shown}; memory +{anonymous() - before:.0f} MiB")
"""


def main() -> None:
    """Draw images, then measure each number of them in a new process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=100_000)
    most = parser.parse_args().most
    with tempfile.TemporaryDirectory() as scratch:
        for count in (most // 10, most // 3, most):
            root = Path(scratch) / str(count)
            started = time.perf_counter()
            draw_images(root, count)
            print(f"(drew {count} in {time.perf_counter() - started:.0f} s)", flush=True)
            subprocess.run(
                [sys.executable, "-c", ONE, str(root), f"{scratch}/cache", str(count)], check=True
            )


def draw_images(root: Path, count: int) -> None:
    """Write distinct small images of 100 subjects: few drawings, each with new noise."""
    generator = np.random.default_rng(0)
    drawn = [
        draw_cell(Subject.draw(label, "1", generator), SIZE, generator)
        for label in Label
        for _ in range(100)
    ]
    for label in Label:
        (root / "fold_0" / label.folder).mkdir(parents=True)
    for number in range(count):
        label = Label(number % 3 > 0)
        picture = drawn[100 * int(label) + generator.integers(100)]
        noise = generator.normal(1, 0.25, (SIZE, SIZE, 1))
        prefix = "" if label is Label.ALL else "H"
        name = f"UID_{prefix}{number % 50 + 1}_{number}_1_{label.folder}.bmp"
        changed = (picture * noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(changed).save(root / "fold_0" / label.folder / name)


if __name__ == "__main__":
    main()
