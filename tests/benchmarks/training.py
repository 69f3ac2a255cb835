"""Training images per second of classifiers and GANs, compared with the thesis's Keras models.

All fit the thesis's form at 224 px, batch 32, in turn; printed are medians over rounds, of a GAN
generator updates times batch size. The comparison needs the Python interpreter of an environment
with TensorFlow::

    python tests/benchmarks/training.py [cnn vit hybrid dcgan wgan cgan]
        [--keras PYTHON --peer keras_seed.py] [--float32] [--compile] [--default-heap]
"""

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from measuring import medians, peer_rate

from leuk.classifiers.cnn import CNN
from leuk.classifiers.hybrid import Hybrid
from leuk.classifiers.vit import ViT
from leuk.data.datamodule import ImageBatches
from leuk.data.pixels import PixelBank
from leuk.gans.base import Adversarial
from leuk.gans.cgan import CGAN
from leuk.gans.dcgan import DCGAN
from leuk.gans.wgan import WGANGP
from leuk.runs.process import keep_heap
from leuk.runs.trainer import ChannelsLast, gains_from_channels_last, precision_for

BATCH, SIDE = 32, 224
FORMS: dict[str, Callable[[], LightningModule]] = {
    "cnn": CNN,
    "vit": ViT,
    "hybrid": lambda: Hybrid(patch=16, stride=6),
    "dcgan": DCGAN,
    "wgan": WGANGP,
    "cgan": CGAN,
}


class Clock(Callback):
    """Measures the rate of updates after the first step, then stops the fit.

    Args:
        seconds: duration of the measurement.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.started, self.before, self.rate = 0.0, 0, 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: object, **__: object
    ) -> None:
        gan = isinstance(pl_module, Adversarial)
        now, done = time.perf_counter(), pl_module.done_updates if gan else pl_module.global_step
        if not self.started:
            self.started, self.before = now, done
        elif now - self.started >= self.seconds:
            self.rate = (done - self.before) * BATCH / (now - self.started)
            trainer.should_stop = True


def rate(module: LightningModule, side: int, seconds: float, precision: str) -> float:
    """Updates times batch size per second on random images, as ``leuk`` fits on this device."""
    pixels = np.random.default_rng(0).integers(0, 255, (8 * BATCH, side, side, 3), np.uint8)
    bank = PixelBank([pixels], np.arange(len(pixels)) % 2)
    clock = Clock(seconds)
    trainer = Trainer(
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        max_epochs=10_000,
        callbacks=[clock, ChannelsLast(gains_from_channels_last("auto"))],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=ImageBatches(bank, np.arange(len(pixels)), BATCH))
    return clock.rate


def of_thesis(name: str, seconds: float, precision: str, compiled: bool = False) -> float:
    """Rate of the thesis's form."""
    module = FORMS[name]()
    if compiled and isinstance(module, Adversarial):
        module.compile_networks()
    return rate(module, SIDE, seconds, precision)


def main() -> None:
    """Print rates and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(FORMS), help="all without any")
    parser.add_argument("--keras", help="interpreter with TensorFlow")
    parser.add_argument("--peer", help="keras_seed.py")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--float32", action="store_true", help="also in this precision")
    parser.add_argument("--compile", action="store_true", help="also with compiled networks (GANs)")
    parser.add_argument("--default-heap", action="store_true", help="do not keep freed memory")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    if not args.default_heap:
        keep_heap()
    for name in args.names:
        kinds = {"leuk": partial(of_thesis, name, args.seconds, precision_for("auto"))}
        if args.float32:
            kinds["float32"] = partial(of_thesis, name, args.seconds, "32-true")
        if args.compile and issubclass(type(FORMS[name]()), Adversarial):
            kinds["compiled"] = partial(of_thesis, name, args.seconds, precision_for("auto"), True)
        if args.keras:
            duration = ("--seconds", str(args.seconds))
            kinds["keras"] = partial(peer_rate, args.keras, args.peer, name, *duration)
        found = medians(kinds, args.rounds)
        rates = ", ".join(f"{kind} {value:.1f}" for kind, value in found.items())
        ratio = f"; ratio {found['leuk'] / found['keras']:.2f}" if args.keras else ""
        print(f"{name}: images/s {rates}{ratio}", flush=True)


if __name__ == "__main__":
    main()
