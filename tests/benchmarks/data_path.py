"""Images per second of the data path, compared with a training step and ImageDataGenerator.

The comparison with Keras needs the Python interpreter of an environment with TensorFlow::

    python tests/benchmarks/data_path.py DIR [--keras PYTHON] [--peer keras_seed.py]

DIR holds C-NMC images; Keras gets its ``fold_0``. Printed are medians of alternating measurements.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace

import torch
from measuring import medians, peer_rate
from omegaconf import OmegaConf

from leuk.classifiers.cnn import CNN
from leuk.config import conf_dir
from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.data.rules import Folds
from leuk.runs.trainer import precision_for


def rate(step: Callable[[], int], seconds: float) -> float:
    """Images per second, after one step of warm-up."""
    step()
    started, images = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        images += step()
    return images / (time.perf_counter() - started)


def loading(root: str, cache: str) -> Callable[[], int]:
    """Step from the stored pixels to an augmented batch of 32 images of 224 px."""
    transforms = instantiate(OmegaConf.load(conf_dir() / "transforms" / "cnn.yaml"))
    data = CNMCDataModule(root, Folds(), resolution=224, transforms=transforms, cache=cache)
    data.setup()
    # The attributes of a trainer that the data module reads during training.
    training = SimpleNamespace(training=True, world_size=1, global_rank=0)
    data.trainer = training  # type: ignore[assignment]
    batches = chain.from_iterable(data.train_dataloader() for _ in repeat(None))

    def step() -> int:
        batch = data.transfer_batch_to_device(next(batches), torch.device("cpu"), 0)
        return len(data.on_after_batch_transfer(batch, 0)["rows"])

    return step


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


def main() -> None:
    """Print rates and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--keras", help="interpreter with TensorFlow")
    parser.add_argument("--peer", help="keras_seed.py")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        kinds = {
            "store to augmented batch": partial(rate, loading(args.root, cache), args.seconds),
            "CNN training step": partial(rate, training_step(), args.seconds),
        }
        if args.keras:
            data = ("--data", str(next(Path(args.root).rglob("fold_0"))))
            kinds["keras"] = partial(peer_rate, args.keras, args.peer, "pipeline", *data)
        found = medians(kinds, args.rounds)
    for name, images in found.items():
        print(f"{name}: {images:.0f} images/s")
    path, step, *keras = found.values()
    print(f"the data path takes {step / (path + step):.1%} of both")
    for other in keras:
        print(f"ratio to keras {path / other:.1f}")


if __name__ == "__main__":
    main()
