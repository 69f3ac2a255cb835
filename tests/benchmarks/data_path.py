"""Images per second of the data path, compared with ImageDataGenerator and a training step.

The comparison with Keras needs the Python interpreter of an environment with TensorFlow::

    python tests/benchmarks/data_path.py DIR [--keras PYTHON] [--peer keras_seed.py]

DIR holds C-NMC images; Keras gets its ``fold_0``.
"""

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import OmegaConf

from leuk.classifiers.cnn import CNN
from leuk.config import conf_dir
from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.data.rules import Folds
from leuk.runs.trainer import precision_for

SECONDS = 10


def rate(step: Callable[[], int]) -> float:
    """Images per second, after one step of warm-up."""
    step()
    started, images = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        images += step()
    return images / (time.perf_counter() - started)


class Training:
    """The attributes of a trainer that the data module reads during training."""

    training = True
    world_size = 1
    global_rank = 0


def main() -> None:
    """Print rates and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--keras", help="interpreter with TensorFlow")
    parser.add_argument("--peer", help="keras_seed.py")
    args = parser.parse_args()
    transforms = instantiate(OmegaConf.load(conf_dir() / "transforms" / "cnn.yaml"))
    with tempfile.TemporaryDirectory() as cache:
        data = CNMCDataModule(
            args.root, Folds(), resolution=224, transforms=transforms, cache=cache
        )
        data.setup()
        data.trainer = Training()  # type: ignore[assignment]
        batches = iter(data.train_dataloader())

        def load() -> int:
            nonlocal batches
            try:
                rows = next(batches)
            except StopIteration:
                batches = iter(data.train_dataloader())
                rows = next(batches)
            batch = data.transfer_batch_to_device(rows, torch.device("cpu"), 0)
            return len(data.on_after_batch_transfer(batch, 0)["rows"])

        path = rate(load)
    print(f"leuk: store to augmented batch, 224 px, batch 32: {path:.0f} images/s")
    step = rate(training_step())
    share = (1 / path) / (1 / path + 1 / step)
    print(f"leuk: CNN training step: {step:.1f} images/s; the data path is {share:.1%} of both")
    if args.keras:
        folder = next(Path(args.root).rglob("fold_0"))
        command = [args.keras, args.peer, "pipeline", "--data", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        line = done.stdout.strip().splitlines()[-1]
        print(f"keras: {line}; ratio {path / float(line.split()[1]):.1f}")


def training_step() -> Callable[[], int]:
    """Training step of the thesis's CNN, in this machine's precision."""
    model = CNN(resolution=224).to(memory_format=torch.channels_last)
    optimizer = model.configure_optimizers()
    images = torch.rand(32, 3, 224, 224).to(memory_format=torch.channels_last)
    labels = torch.arange(32) % 2
    mixed = precision_for("cpu") == "bf16-mixed"

    def step() -> int:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            logits = model(images)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        return len(images)

    return step


if __name__ == "__main__":
    main()
