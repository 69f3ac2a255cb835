"""Generator updates x batch a second of each GAN, beside the same GAN in the thesis's own stack.

Both sides fit the thesis's form at 224 px, batch 32, one after the other in one run. Give it the
interpreter of an environment that has TensorFlow to compare with Keras::

    python tests/benchmarks/gans.py [dcgan wgan cgan] [--keras PYTHON --peer keras_seed.py]

``--compile`` adds a run with compiled networks, ``--seconds`` says how long each takes.
"""

import argparse
import subprocess
import tempfile
import time

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from leuk.data.bank import PixelBank
from leuk.data.datamodule import CellBatches
from leuk.gans.adversarial import Adversarial
from leuk.gans.cgan import CGAN
from leuk.gans.dcgan import DCGAN
from leuk.gans.wgan import WGANGP
from leuk.runs.device import ChannelsLast, gains_from_channels_last, precision_for

FORMS = {"dcgan": DCGAN, "wgan": WGANGP, "cgan": CGAN}
BATCH = 32


class Clock(Callback):
    """Counts generator updates for some seconds after the first round."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.started = self.before = self.rate = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: object, **__: object
    ) -> None:
        assert isinstance(pl_module, Adversarial)
        now = time.perf_counter()
        if not self.started:
            self.started, self.before = now, pl_module.done_updates
        elif now - self.started >= self.seconds:
            self.rate = (pl_module.done_updates - self.before) * BATCH / (now - self.started)
            trainer.should_stop = True


def rate(gan: Adversarial, seconds: float) -> float:
    """Generator updates x batch a second, as ``leuk synthesize`` fits on a CPU."""
    pixels = np.random.default_rng(0).integers(0, 255, (8 * BATCH, 224, 224, 3), np.uint8)
    bank = PixelBank([pixels], np.arange(len(pixels)) % 2)
    clock = Clock(seconds)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            precision=precision_for("cpu"),  # type: ignore[arg-type]
            max_epochs=10_000,
            callbacks=[clock, ChannelsLast(gains_from_channels_last("cpu"))],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(gan, datamodule=CellBatches(bank, np.arange(len(pixels)), BATCH))
    return clock.rate


def main() -> None:
    """Print rates and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gans", nargs="*", default=list(FORMS), help="all without any")
    parser.add_argument("--keras", help="interpreter with TensorFlow")
    parser.add_argument("--peer", help="keras_seed.py")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    for name in args.gans:
        form = FORMS[name]
        line = f"{name}: leuk {(own := rate(form(), args.seconds)):.1f} images/s"
        if args.compile:
            gan = form()
            gan.compile_networks()
            line += f", compiled {rate(gan, args.seconds):.1f}"
        if args.keras:
            command = [args.keras, args.peer, name, "--seconds", str(args.seconds)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peer = float(done.stdout.strip().splitlines()[-1].split()[1])
            line += f", keras {peer:.1f}; ratio {own / peer:.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
