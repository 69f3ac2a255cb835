"""Trained GANs as resumable artifacts, one per architecture, training images and seed."""

import logging
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hydra.utils import get_class
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf

from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule, ImageBatches
from leuk.data.labels import Label
from leuk.errors import DataError
from leuk.gans.adversarial import Adversarial
from leuk.gans.samples import SampleGrids
from leuk.runs.checkpoints import last_readable, older_arguments, read_checkpoint
from leuk.runs.device import describe
from leuk.runs.fitting import build_named, build_trainer, memory_errors
from leuk.runs.identity import NEUTRAL
from leuk.store.artifacts import make_once, unfinished
from leuk.store.atomic import write_json

log = logging.getLogger(__name__)

FORMAT = 3
"""Version in every GAN's key; increase it when training or sampling changes."""

WEIGHTS = "gan.ckpt"

FACTS = "fit.json"
"""Facts of the training: ``seconds``, ``device``, ``images`` (their number), generator
``updates``, and ``whole`` (never resumed)."""

Rows = npt.NDArray[np.int64]


def form_of(cfg: DictConfig) -> type[Adversarial]:
    """Class of the configured GAN."""
    form = get_class(cfg.gan._target_)
    assert issubclass(form, Adversarial)
    return form


def fitted_gan(cfg: DictConfig, data: CNMCDataModule, labels: Sequence[Label]) -> Path:
    """Find or train the configured GAN on training images of ``labels`` only.

    Stopped training resumes from its last complete checkpoint.

    Args:
        cfg: config of the run.
        data: data module with the training stage.
        labels: classes of the training images.

    Returns:
        Folder of the artifact, with ``gan.ckpt``, ``fit.json``, ``samples/`` and ``log/``.

    Raises:
        DataError: the training stage has too few images of a class.
    """
    rows = _rows_of(cfg, data, labels)
    root = Path(cfg.outputs) / "artifacts"
    key = gan_key(cfg, data.content(rows))
    scratch = unfinished(root, "gan", key)
    folder = make_once(
        root, "gan", key, lambda target: _fit(cfg, data, rows, labels, scratch, target)
    )
    shutil.rmtree(scratch, ignore_errors=True)
    return folder


def load_gan(cfg: DictConfig, folder: Path) -> Adversarial:
    """Load the GAN of an artifact, on the CPU.

    Raises:
        StoreError: the checkpoint is not a readable file of weights.
    """
    form = form_of(cfg)
    older = older_arguments(form, read_checkpoint(folder / WEIGHTS, {}))
    gan = form.load_from_checkpoint(
        folder / WEIGHTS, map_location="cpu", weights_only=True, **older
    )
    assert isinstance(gan, Adversarial)
    return gan.eval()


def gan_key_of(cfg: DictConfig, data: CNMCDataModule, labels: Sequence[Label]) -> dict[str, object]:
    """Key of the GAN that :func:`fitted_gan` would find or train; raises the same errors."""
    return gan_key(cfg, data.content(_rows_of(cfg, data, labels)))


def gan_key(cfg: DictConfig, content: str) -> dict[str, object]:
    """Key of a trained GAN: architecture, training settings, training images and seed.

    Args:
        cfg: config of the run.
        content: digest of the training images.
    """
    return {
        "format": FORMAT,
        "gan": OmegaConf.to_container(cfg.gan, resolve=True),
        "gan_fit": {key: cfg.gan_fit[key] for key in ("epochs", "batch_size", "compile")},
        "trainer": _relevant(cfg.trainer),
        "channels_last": OmegaConf.select(cfg, "callbacks.channels_last.enabled"),
        "images": content,
        "seed": int(cfg.seed),
    }


def _relevant(trainer: DictConfig) -> dict[str, object]:
    """Trainer settings that change a GAN's weights; the number of epochs is set elsewhere."""
    values = OmegaConf.to_container(trainer, resolve=True)
    assert isinstance(values, dict)
    neutral = {name.removeprefix("trainer.") for name in NEUTRAL} | {"max_epochs"}
    return {str(name): value for name, value in values.items() if name not in neutral}


def _rows_of(cfg: DictConfig, data: CNMCDataModule, labels: Sequence[Label]) -> Rows:
    stage = data.stage("train")["label"].to_numpy()
    for label in labels:
        if not (stage == label).any():
            raise DataError(
                f"split: no {label.folder} images for training, so {cfg.gan._target_} cannot be "
                "trained; choose other folds with split.train, or augmentation=none"
            )
    rows: Rows = data.split.train[np.isin(stage, labels)]
    if len(rows) < cfg.gan_fit.batch_size:
        raise DataError(
            f"gan_fit.batch_size={cfg.gan_fit.batch_size}: only {len(rows)} training images for "
            f"the GAN; set gan_fit.batch_size={len(rows)} or lower"
        )
    return rows


def _fit(
    cfg: DictConfig,
    data: CNMCDataModule,
    rows: Rows,
    labels: Sequence[Label],
    scratch: Path,
    target: Path,
) -> None:
    """Train a GAN on ``rows`` with checkpoints in ``scratch``; write the artifact to ``target``."""
    names = " and ".join(label.folder for label in labels)
    log.info("training %s on %d images of %s", cfg.gan._target_, len(rows), names)
    seed_everything(cfg.seed, workers=True, verbose=False)
    gan: Adversarial = instantiate(cfg.gan)
    if cfg.gan_fit.compile:
        gan.compile_networks()
    batches = ImageBatches(
        data.bank,
        # An epoch shows each image once per adversary update of a round, so that the number of
        # generator updates per epoch does not depend on the number of adversary updates.
        np.tile(rows, gan.fitting.adversary_steps),
        batch_size=cfg.gan_fit.batch_size,
        workers=cfg.data.workers,
        seed=cfg.seed,
    )
    trainer = _trainer(cfg, scratch, labels)
    limit_epochs(trainer, gan, len(batches.train) // cfg.gan_fit.batch_size)
    stopped = last_readable(scratch / "checkpoints")
    started = time.perf_counter()
    with memory_errors("gan_fit.batch_size", cfg.gan_fit.batch_size):
        trainer.fit(gan, datamodule=batches, ckpt_path=stopped, weights_only=True)
    facts = {
        "seconds": round(time.perf_counter() - started, 3),
        "whole": stopped is None,
        "device": describe(trainer, False)["name"],
        "images": len(rows),
        "updates": gan.done_updates,
    }
    write_json(target / FACTS, facts)
    trainer.save_checkpoint(target / WEIGHTS, weights_only=True)
    for name in ("samples", "log"):
        shutil.copytree(scratch / name, target / name)


def _trainer(cfg: DictConfig, scratch: Path, labels: Sequence[Label]) -> Trainer:
    callbacks = [
        *build_named(cfg.callbacks, ("progress", "channels_last", "tf32")).values(),
        SampleGrids(scratch / "samples", labels, cfg.gan_fit.sample_every),
        ModelCheckpoint(
            scratch / "checkpoints",
            filename="{epoch:05d}",
            every_n_epochs=cfg.gan_fit.checkpoint_every,
            enable_version_counter=False,
        ),
    ]
    return build_trainer(
        cfg,
        scratch,
        callbacks,
        max_epochs=cfg.gan_fit.epochs,
        # Each resumed start logs to its own file, so that no curve is lost.
        logger=CSVLogger(scratch, name="log"),
    )


def limit_epochs(trainer: Trainer, gan: Adversarial, batches: int) -> None:
    """Lower the trainer's number of epochs to the GAN's updates, for a correct remaining time.

    Args:
        trainer: trainer whose ``max_epochs`` is lowered.
        gan: the GAN to train.
        batches: batches per epoch.
    """
    if gan.fitting.updates is not None:
        rounds = math.ceil(gan.fitting.updates / gan.fitting.generator_steps)
        needed = math.ceil(rounds * gan.fitting.adversary_steps / max(1, batches))
        trainer.fit_loop.max_epochs = min(trainer.max_epochs or needed, needed)
