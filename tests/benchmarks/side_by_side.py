"""Common parts of the benchmarks of fitting: random images, a clock, and the peer's rate."""

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from leuk.data.datamodule import ImageBatches
from leuk.data.pixels import PixelBank
from leuk.runs.process import keep_heap
from leuk.runs.trainer import ChannelsLast, gains_from_channels_last, precision_for

BATCH = 32
SIDE = 224


class Clock(Callback):
    """Measures the rate of updates after the first step.

    Args:
        seconds: duration of the measurement.
        done: function that returns a module's number of updates so far.
    """

    def __init__(self, seconds: float, done: Callable[[LightningModule], int]) -> None:
        self.seconds, self.done = seconds, done
        self.started, self.before, self.rate = 0.0, 0, 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: object, **__: object
    ) -> None:
        now = time.perf_counter()
        if not self.started:
            self.started, self.before = now, self.done(pl_module)
        elif now - self.started >= self.seconds:
            self.rate = (self.done(pl_module) - self.before) * BATCH / (now - self.started)
            trainer.should_stop = True


def rate(
    module: LightningModule,
    seconds: float,
    done: Callable[[LightningModule], int],
    precision: str | None = None,
) -> float:
    """Updates times batch size per second on random images of 224 px, as ``leuk`` fits here."""
    pixels = np.random.default_rng(0).integers(0, 255, (8 * BATCH, SIDE, SIDE, 3), np.uint8)
    bank = PixelBank([pixels], np.arange(len(pixels)) % 2)
    clock = Clock(seconds, done)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="auto",
            devices=1,
            precision=precision or precision_for("auto"),  # type: ignore[arg-type]
            max_epochs=10_000,
            callbacks=[clock, ChannelsLast(gains_from_channels_last("auto"))],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(module, datamodule=ImageBatches(bank, np.arange(len(pixels)), BATCH))
    return clock.rate


def arguments(description: str | None, names: list[str]) -> argparse.ArgumentParser:
    """Command-line options of the benchmarks of fitting."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("names", nargs="*", default=names, help="all without any")
    parser.add_argument("--keras", help="interpreter with TensorFlow")
    parser.add_argument("--peer", help="keras_seed.py")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--default-heap", action="store_true", help="do not keep freed memory")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the arguments and keep freed memory as ``leuk`` does."""
    args = parser.parse_args()
    if not args.default_heap:
        keep_heap()
    return args


def beside_keras(name: str, own: float, args: argparse.Namespace) -> str:
    """Text with the peer's rate and the ratio; empty without a peer."""
    if not args.keras:
        return ""
    command = [args.keras, args.peer, name, "--seconds", str(args.seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peer = float(done.stdout.strip().splitlines()[-1].split()[1])
    return f", keras {peer:.1f}; ratio {own / peer:.2f}"
