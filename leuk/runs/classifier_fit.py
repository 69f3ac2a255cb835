"""The fit of one cell's classifier: continued where it was stopped, ended on its best weights."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from leuk.classifiers.classifier import Classifier
from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.errors import StoreError, TrainingError
from leuk.grid.record import WENT_ON, Record
from leuk.runs.checkpoints import last_whole, read_checkpoint
from leuk.runs.curves import curves
from leuk.runs.device import describe
from leuk.runs.fitting import build_named, build_trainer, told_of_memory
from leuk.runs.synthesis import class_weights
from leuk.store.atomic import whole_file

log = logging.getLogger(__name__)

RESUME = "checkpoints/resume"
"""Where a cell keeps what a stopped fit goes on from."""

FITTED = "checkpoints/fitted.ckpt"
"""The best weights of a fit that ended, until the cell is complete: a stop while it is tested or
explained costs no fit."""


def fitted_classifier(
    cfg: DictConfig, folder: Path, data: CNMCDataModule, record: Record
) -> Classifier:
    """Fit the cell's classifier, and give it the weights that did best on validation cells.

    Raises:
        StoreError: a stopped fit in the folder is not of this cell.
        TrainingError: the loss is not finite, a batch does not fit into memory, or the fit ends
            without a checkpoint.
    """
    # Anew, so that a cell is the same whether its GAN was fitted here or found.
    seed_everything(cfg.seed, workers=True, verbose=False)
    classifier = _new(cfg, data, record)
    callbacks = build_named(cfg.callbacks)
    channels_last = getattr(callbacks.get("channels_last"), "enabled", False)
    if _fitted_before(folder, classifier, record):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return classifier.to(memory_format=layout)
    stopped = last_whole(folder / RESUME)
    if stopped is not None:
        read_checkpoint(stopped, classifier.stamp)
        record.warnings.append(WENT_ON)
    with curves(cfg) as loggers:
        trainer = _trainer(cfg, folder, [*callbacks.values()], loggers)
        record.device = describe(trainer, channels_last)
        log.info("%s: fitting on %s", record.cell.folder, _said(record))
        with told_of_memory("data.batch_size", cfg.data.batch_size), _compiled(classifier, cfg):
            trainer.fit(classifier, datamodule=data, ckpt_path=stopped, weights_only=True)
    best = callbacks.get("checkpoint")
    if not isinstance(best, ModelCheckpoint) or not best.best_model_path:
        raise TrainingError(
            "the fit ended without a checkpoint, as no validation epoch was reached; leave "
            "callbacks.checkpoint and trainer's settings of validation as they are"
        )
    weights = read_checkpoint(Path(best.best_model_path), classifier.stamp)["state_dict"]
    classifier.load_state_dict(weights)
    kept = {"state_dict": weights, "stamp": classifier.stamp, "device": record.device}
    with whole_file(folder / FITTED) as temporary:
        torch.save(kept, temporary)
    shutil.rmtree(folder / RESUME, ignore_errors=True)
    return classifier


def forget_fit(folder: Path) -> None:
    """Remove what only a cell that is not complete needs of its fit."""
    (folder / FITTED).unlink(missing_ok=True)


def _fitted_before(folder: Path, classifier: Classifier, record: Record) -> bool:
    """Take the weights of a fit that ended before the cell was stopped, where there are some."""
    path = folder / FITTED
    if not path.is_file():
        return False
    try:
        values = read_checkpoint(path, classifier.stamp)
    except StoreError as error:
        log.warning("%s; the cell is fitted again", error)
        return False
    classifier.load_state_dict(values["state_dict"])
    record.device = values["device"]
    record.warnings.append(WENT_ON)
    log.info("%s: fitted already, going on after that", record.cell.folder)
    return True


def _new(cfg: DictConfig, data: CNMCDataModule, record: Record) -> Classifier:
    """The classifier before its first step, with what it takes from the training part."""
    classifier: Classifier = instantiate(cfg.model)
    classifier.stamp |= {"settings": record.fingerprint, "data": data.listing()}
    if cfg.fit.standardise:
        classifier.normalise_by(*data.channel_statistics())
    if cfg.augmentation.name == "class_weights":
        classifier.weigh_by(class_weights(data))
    return classifier


@contextmanager
def _compiled(classifier: Classifier, cfg: DictConfig) -> Iterator[None]:
    """Compile what training calls, if that is wanted; explanations hook into the plain layers."""
    if cfg.fit.compile:
        classifier.compile()
    try:
        yield
    finally:
        classifier._compiled_call_impl = None


def _trainer(
    cfg: DictConfig, folder: Path, callbacks: list[Callback], loggers: list[Logger]
) -> Trainer:
    resume = ModelCheckpoint(
        folder / RESUME,
        filename="{epoch:05d}",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    return build_trainer(cfg, folder, [*callbacks, resume], logger=loggers)


def _said(record: Record) -> str:
    layout = "channels-last" if record.device["channels_last"] else "channels-first"
    return f"{record.device['name']}, {record.device['precision']}, {layout}"
