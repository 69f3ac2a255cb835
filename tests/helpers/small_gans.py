"""GANs small enough to train in a test, and a function that trains them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from leuk.data.datamodule import ImageBatches
from leuk.data.pixels import PixelBank
from leuk.gans.base import Adversarial, Fitting
from leuk.gans.cgan import CGAN
from leuk.gans.dcgan import DCGAN
from leuk.gans.diffaugment import DiffAugment
from leuk.gans.wgan import WGANGP

FORMS = {"dcgan": DCGAN, "wgan": WGANGP, "cgan": CGAN}


def small(name: str, **changes: object) -> Adversarial:
    arguments = {
        "resolution": 32,
        "latent": 8,
        "first": 8,
        "widths": (8,) * (4 if changes.get("networks") == "strong" else 5),
        "adversary_widths": (8, 8),
        **changes,
    }
    return FORMS[name](**arguments)  # type: ignore[arg-type]


def fit(
    gan: Adversarial,
    tmp_path: Path | str,
    epochs: int = 2,
    pixels: npt.NDArray[np.uint8] | None = None,
    labels: npt.NDArray[np.int64] | None = None,
    resume: Path | None = None,
    callbacks: Sequence[Callback] = (),
    **arguments: Any,
) -> Trainer:
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3), np.uint8)
    count = len(pixels)
    bank = PixelBank([pixels], np.arange(count) % 2 if labels is None else labels)
    trainer = Trainer(
        accelerator=arguments.pop("accelerator", "cpu"),
        max_epochs=epochs,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **arguments,
    )
    batches = ImageBatches(bank, np.arange(count), batch_size=4)
    trainer.fit(gan, datamodule=batches, ckpt_path=resume, weights_only=True)
    return trainer


STRONG = {"networks": "strong", "fitting": Fitting(average=0.9), "augment": DiffAugment(shift=0.1)}
